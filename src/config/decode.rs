//! Nodes -> typed values, with every problem told at once and every value keeping its place.
//!
//! A serde deserializer ends at its first error and forgets where a value was; here a field that is wrong
//! is told and left out, and the rest is read on. Field names are checked against those of the type.

use std::sync::Arc;
use std::time::Duration;

use super::document::{Key, Node, Spot, Value};
use super::duration;
use super::report::{Report, similar};
use super::sources::Place;

/// A value and the place where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub place: Place,
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Something that was written and whose content is of no interest.
#[derive(Debug, Clone, Copy)]
pub struct Opaque;

/// A mapping whose keys are names of the user's own.
#[derive(Debug, Clone)]
pub struct Table<T>(pub Vec<(At<String>, T)>);

/// String keys and string values.
pub type Labels = At<Table<At<String>>>;

/// A list of strings.
pub type Strings = At<Vec<At<String>>>;

/// What can be read from a node; `None` after the problem was told.
pub trait Decode: Sized {
    /// Reads the node.
    fn decode(node: &Arc<Node>, decoder: &mut Decoder<'_>) -> Option<Self>;
}

/// What a scalar can be read as.
pub trait Scalar: Sized {
    /// Reads the text; `plain` says that it was not quoted.
    fn scalar(text: &str, plain: bool) -> Result<Self, String>;
}

/// A word out of a list.
pub trait Word: Sized + Copy + 'static {
    /// Every word and what it stands for.
    const WORDS: &'static [(&'static str, Self)];
}

/// Reads the nodes of one resource.
pub struct Decoder<'report> {
    /// Where problems are told.
    pub report: &'report mut Report,
    /// The file and the resource.
    pub whence: Place,
}

impl Decoder<'_> {
    /// The place of a node.
    pub fn place(&self, node: &Node) -> Place {
        Place { spot: node.spot, node: node.spot, ..self.whence }
    }

    fn wrong(&mut self, node: &Node, message: String) {
        let place = self.place(node);
        self.report.error(place, message);
    }

    /// The fields of a mapping, of which those that are not known are told.
    pub fn fields<'node>(&mut self, node: &'node Node, known: &[&'static str]) -> Option<Fields<'node>> {
        let Value::Mapping(entries) = &node.value else {
            self.wrong(node, format!("expected a mapping, found {}", described(node)));
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            self.unknown(node, key, known);
        }
        Some(Fields(entries))
    }

    fn unknown(&mut self, parent: &Node, key: &Key, known: &[&'static str]) {
        let place = Place { spot: key.spot, ..self.place(parent) };
        let problem = self.report.error(place, format!("expected a known field, found {:?}", key.text));
        problem.field(key.text.clone());
        match similar(&key.text, known.iter().copied()) {
            Some(meant) => problem.help(format!("did you mean {meant:?}?")),
            None => problem.help(format!("the fields here are {}", known.join(", "))),
        };
    }
}

/// The fields of a mapping.
pub struct Fields<'node>(&'node [(Key, Arc<Node>)]);

impl Fields<'_> {
    /// Reads a field; null is as good as absent.
    pub fn take<T: Decode>(&self, name: &str, decoder: &mut Decoder<'_>) -> Option<T> {
        let (_, node) = self.0.iter().find(|(key, _)| key.text == name)?;
        if node.is_null() { None } else { T::decode(node, decoder) }
    }
}

/// A node in words, for what was found.
fn described(node: &Node) -> String {
    match &node.value {
        Value::Plain(_) if node.is_null() => "nothing".into(),
        Value::Plain(text) if is_boolean(text) => format!("the boolean {text}"),
        Value::Plain(text) if is_number(text) => format!("the number {text}"),
        Value::Plain(text) | Value::Quoted(text) => format!("the string {text:?}"),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
    }
}

fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
        && (text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o"))
}

impl<T: Scalar> Decode for At<T> {
    fn decode(node: &Arc<Node>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let read = match &node.value {
            Value::Plain(text) => T::scalar(text, true),
            Value::Quoted(text) => T::scalar(text, false),
            Value::Sequence(_) | Value::Mapping(_) => Err("expected a value".into()),
        };
        match read {
            Ok(value) => Some(Self { value, place: decoder.place(node) }),
            Err(expected) => {
                decoder.wrong(node, format!("{expected}, found {}", described(node)));
                None
            }
        }
    }
}

impl<T: Decode> Decode for At<Vec<T>> {
    fn decode(node: &Arc<Node>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            decoder.wrong(node, format!("expected a list, found {}", described(node)));
            return None;
        };
        let mut value = Vec::with_capacity(items.len());
        for item in items {
            if item.is_null() {
                decoder.wrong(item, "expected an element, found nothing".into());
            } else {
                value.extend(T::decode(item, decoder));
            }
        }
        Some(Self { value, place: decoder.place(node) })
    }
}

impl<T: Decode> Decode for At<Table<T>> {
    fn decode(node: &Arc<Node>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            decoder.wrong(node, format!("expected a mapping, found {}", described(node)));
            return None;
        };
        let mut rows = Vec::with_capacity(entries.len());
        for (key, item) in entries {
            let name = At { value: key.text.clone(), place: Place { spot: key.spot, ..decoder.place(item) } };
            rows.extend(T::decode(item, decoder).map(|value| (name, value)));
        }
        Some(Self { value: Table(rows), place: decoder.place(node) })
    }
}

impl Decode for At<Opaque> {
    fn decode(node: &Arc<Node>, decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self { value: Opaque, place: decoder.place(node) })
    }
}

impl Scalar for String {
    fn scalar(text: &str, plain: bool) -> Result<Self, String> {
        if plain && (is_boolean(text) || is_number(text)) {
            return Err("expected a string".into());
        }
        Ok(text.to_owned())
    }
}

impl Scalar for bool {
    fn scalar(text: &str, plain: bool) -> Result<Self, String> {
        match text {
            "true" if plain => Ok(true),
            "false" if plain => Ok(false),
            _ => Err("expected true or false".into()),
        }
    }
}

/// Integers as the schemas have them; what a number may be is a matter of the rules of its field.
impl Scalar for i64 {
    fn scalar(text: &str, plain: bool) -> Result<Self, String> {
        let expected = || "expected an integer".to_owned();
        if !plain {
            return Err(expected());
        }
        text.parse().map_err(|_| expected())
    }
}

/// At least a millisecond, in whole milliseconds; where zero has a meaning, [`OrZero`] is read.
impl Scalar for Duration {
    fn scalar(text: &str, plain: bool) -> Result<Self, String> {
        let duration = OrZero::scalar(text, plain)?.0;
        if duration.is_zero() { Err("expected a duration of at least 1ms".into()) } else { Ok(duration) }
    }
}

/// A duration that may be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrZero(pub Duration);

impl Scalar for OrZero {
    fn scalar(text: &str, plain: bool) -> Result<Self, String> {
        let expected = || "expected a duration such as 10s, 250ms or 1h30m".to_owned();
        if plain && is_number(text) {
            return Err(expected());
        }
        duration::parse(text).map(OrZero).map_err(|_| expected())
    }
}

/// A word of a list is written as it stands there, upper case included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneOf<T>(pub T);

impl<T: Word> Scalar for OneOf<T> {
    fn scalar(text: &str, _plain: bool) -> Result<Self, String> {
        let found = T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| Self(*value));
        found.ok_or_else(|| {
            let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
            let meant = similar(text, words.iter().copied());
            let meant = meant.map(|word| format!(" (did you mean {word}?)")).unwrap_or_default();
            format!("expected one of {}{meant}", words.join(", "))
        })
    }
}

/// Defines a type for a mapping of the schema: each field optional, read under its name, with its place.
macro_rules! written {
    ($(#[$about:meta])* $name:ident { $($field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            /// Where it is written.
            pub place: $crate::config::sources::Place,
            $(#[doc = concat!("`", $key, "`.")] pub $field: Option<$type>,)*
        }

        impl $name {
            /// The names of the fields, as they are written.
            pub const FIELDS: &'static [&'static str] = &[$($key),*];
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &std::sync::Arc<$crate::config::document::Node>,
                decoder: &mut $crate::config::decode::Decoder<'_>,
            ) -> Option<Self> {
                let fields = decoder.fields(node, Self::FIELDS)?;
                Some(Self { place: decoder.place(node), $($field: fields.take($key, decoder),)* })
            }
        }
    };
}

/// Defines the words of a list.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($word:literal => $variant:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $(#[doc = concat!("`", $word, "`.")] $variant,)* }

        impl $crate::config::decode::Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),*];
        }
    };
}

pub(crate) use {words, written};

/// The place of a spot that is no node of its own.
pub fn at(whence: Place, spot: Spot) -> Place {
    Place { spot, node: spot, ..whence }
}
