//! Text -> YAML documents of which every node knows its line and column.
//!
//! Whatever the text is, this ends: depth and number of nodes are bounded, also what aliases expand to.
//! Kubernetes reads YAML as JSON, so keys are strings and no key is there twice. JSON is YAML.

use std::collections::HashSet;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

/// Nesting of a document at most; the deepest Istio resource has about ten levels.
const DEPTH_MAX: usize = 64;
/// Nodes of one file at most, with every alias counted as what it stands for.
const NODES_MAX: usize = 4_000_000;

/// A place in a text: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Spot {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// A value and where it is written.
#[derive(Debug)]
pub struct Node {
    /// Where it begins.
    pub spot: Spot,
    /// What it is.
    pub value: Value,
    /// The nodes it stands for, itself included.
    size: usize,
}

/// What a node is.
#[derive(Debug)]
pub enum Value {
    /// A scalar that was not quoted: a string, or a number, boolean or null by its look.
    Plain(String),
    /// A scalar that is a string whatever it looks like.
    Quoted(String),
    /// A list.
    Sequence(Vec<Arc<Node>>),
    /// Keys and values in the order in which they are written.
    Mapping(Vec<(Key, Arc<Node>)>),
}

/// A key of a mapping and where it is written.
#[derive(Debug)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Where it begins.
    pub spot: Spot,
}

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub spot: Spot,
    /// What.
    pub message: String,
}

impl Node {
    /// Whether there is nothing: an absent value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A mapping without anything in it.
    pub fn empty(spot: Spot) -> Self {
        Self { spot, value: Value::Mapping(Vec::new()), size: 1 }
    }

    /// The value of a key of a mapping.
    pub fn get(&self, name: &str) -> Option<&Arc<Self>> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(text) | Value::Quoted(text) => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// How to get from this node to the one at `spot`: `spec.servers[0].tls`.
    pub fn path_to(&self, spot: Spot) -> Option<String> {
        if self.spot == spot {
            return Some(String::new());
        }
        match &self.value {
            Value::Plain(_) | Value::Quoted(_) => None,
            Value::Sequence(items) => items
                .iter()
                .enumerate()
                .find_map(|(index, item)| item.path_to(spot).map(|rest| join(&format!("[{index}]"), &rest))),
            Value::Mapping(entries) => {
                entries.iter().find_map(|(key, node)| node.path_to(spot).map(|rest| join(&key.text, &rest)))
            }
        }
    }
}

/// Puts two parts of a path together.
pub fn join(first: &str, rest: &str) -> String {
    if first.is_empty() || rest.is_empty() || rest.starts_with('[') {
        format!("{first}{rest}")
    } else {
        format!("{first}.{rest}")
    }
}

/// Reads every document of a text. Empty ones are left out.
pub fn parse(text: &str) -> Result<Vec<Arc<Node>>, SyntaxError> {
    let mut reader = Reader::new(text);
    let mut documents = Vec::new();
    loop {
        match reader.next()?.0 {
            Event::DocumentStart(_) => {
                reader.anchors.clear();
                let (event, start) = reader.next()?;
                let root = reader.node(event, start, 0)?;
                if !root.is_null() {
                    documents.push(root);
                }
            }
            Event::StreamEnd => return Ok(documents),
            Event::Nothing
            | Event::StreamStart
            | Event::DocumentEnd
            | Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => {}
        }
    }
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    anchors: Vec<(usize, Arc<Node>)>,
    nodes: usize,
}

impl<'text> Reader<'text> {
    fn new(text: &'text str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { parser: Parser::new_from_str(text), anchors: Vec::new(), nodes: 0 }
    }

    fn next(&mut self) -> Result<(Event<'text>, Spot), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, spot(span.start))),
            Some(Err(error)) => Err(malformed(&error)),
            None => Ok((Event::StreamEnd, Spot::default())),
        }
    }

    fn node(&mut self, event: Event<'text>, start: Spot, depth: usize) -> Result<Arc<Node>, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(wrong(start, format!("expected at most {DEPTH_MAX} levels of nesting, found more")));
        }
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, start),
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
                let text = text.into_owned();
                (if quoted { Value::Quoted(text) } else { Value::Plain(text) }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(wrong(start, "expected a value, found none".into())),
        };
        let size = 1 + match &value {
            Value::Plain(_) | Value::Quoted(_) => 0,
            Value::Sequence(items) => items.iter().map(|item| item.size).sum::<usize>(),
            Value::Mapping(entries) => entries.iter().map(|(_, node)| node.size).sum(),
        };
        self.count(1, start)?;
        let node = Arc::new(Node { spot: start, value, size });
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, start: Spot) -> Result<Arc<Node>, SyntaxError> {
        let found = self.anchors.iter().rev().find(|(known, _)| *known == anchor);
        let node = found.map(|(_, node)| node.clone());
        let node =
            node.ok_or_else(|| wrong(start, "expected an anchor in this document, found none".into()))?;
        self.count(node.size, start)?;
        Ok(node)
    }

    /// What is counted is what a walk over the document would meet, so the walk is bounded too.
    fn count(&mut self, nodes: usize, start: Spot) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err(wrong(start, format!("expected at most {NODES_MAX} values in a file, found more")));
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, start) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::Sequence(items));
            }
            items.push(self.node(event, start, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (event, start) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Mapping(entries));
            }
            let Event::Scalar(text, ..) = event else {
                return Err(wrong(start, "expected a string as key, found something else".into()));
            };
            let key = Key { text: text.into_owned(), spot: start };
            if !seen.insert(key.text.clone()) {
                return Err(wrong(start, format!("expected each key once, found it twice: {:?}", key.text)));
            }
            let (event, start) = self.next()?;
            // An absent value is said to be where the next one begins; it belongs behind its key.
            let absent = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty());
            let start = if absent { behind(&key) } else { start };
            entries.push((key, self.node(event, start, depth + 1)?));
        }
    }
}

fn behind(key: &Key) -> Spot {
    let length = u32::try_from(key.text.chars().count()).unwrap_or(0);
    Spot { line: key.spot.line, column: key.spot.column.saturating_add(length).saturating_add(1) }
}

fn spot(marker: Marker) -> Spot {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Spot { line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
}

fn malformed(error: &ScanError) -> SyntaxError {
    wrong(spot(*error.marker()), format!("expected YAML, found an error: {}", error.info()))
}

fn wrong(spot: Spot, message: String) -> SyntaxError {
    SyntaxError { spot, message }
}
