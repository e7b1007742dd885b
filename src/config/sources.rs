//! The files of a configuration: which they are, their text, and where in it something is.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{Node, Spot};

/// A larger file is no configuration.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Levels of folders below one that is given.
const DEPTH_MAX: usize = 16;
/// Files of a configuration at most.
const FILES_MAX: usize = 100_000;

/// A place in one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// Which file.
    pub file: u32,
    /// Which of its resources.
    pub resource: u32,
    /// Where in its text.
    pub spot: Spot,
    /// Where the value is that the place belongs to; its path is told.
    pub node: Spot,
}

/// The files of a configuration.
#[derive(Debug, Default)]
pub struct Sources {
    /// In the order in which they are read.
    pub files: Vec<SourceFile>,
}

/// One file.
#[derive(Debug)]
pub struct SourceFile {
    /// Its path as it is told.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Its resources, items of lists included.
    pub resources: Vec<Located>,
}

/// A resource in a file.
#[derive(Debug)]
pub struct Located {
    /// Kind and namespace/name, as it is told.
    pub title: String,
    /// Its root.
    pub root: Arc<Node>,
}

impl Sources {
    fn file(&self, place: Place) -> Option<&SourceFile> {
        self.files.get(place.file as usize)
    }

    fn located(&self, place: Place) -> Option<&Located> {
        self.file(place)?.resources.get(place.resource as usize)
    }

    /// The path of the file.
    pub fn name(&self, place: Place) -> &str {
        self.file(place).map_or("", |file| &file.name)
    }

    /// Kind and name of the resource.
    pub fn resource(&self, place: Place) -> Option<&str> {
        self.located(place).map(|located| located.title.as_str())
    }

    /// The path of the field.
    pub fn path(&self, place: Place) -> String {
        self.located(place).and_then(|located| located.root.path_to(place.node)).unwrap_or_default()
    }

    /// The line of the text.
    pub fn line(&self, place: Place) -> Option<&str> {
        let text = self.file(place)?.text.trim_start_matches('\u{feff}');
        text.lines().nth(place.spot.line.checked_sub(1)? as usize)
    }

    /// File and line, for a fact that is told with its origin.
    pub fn line_of(&self, place: Place) -> String {
        format!("{}:{}", self.name(place), place.spot.line)
    }
}

/// Why a path is not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The path.
    pub path: PathBuf,
    /// The reason.
    pub why: String,
}

/// Finds and reads the files: those that are given, and below folders every `*.yaml`, `*.yml` and `*.json`,
/// in the order of their paths. Names that begin with a dot are passed over, and with them the folders of a
/// mounted `ConfigMap`, whose files are links into one of these.
pub fn read(paths: &[PathBuf]) -> (Vec<(String, String)>, Vec<Unreadable>) {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        if path.is_dir() {
            walk(path, 0, &mut files, &mut problems);
        } else {
            files.push(path.clone());
        }
    }
    let mut texts = Vec::new();
    for path in files.into_iter().take(FILES_MAX) {
        match read_file(&path) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(why) => problems.push(Unreadable { path, why }),
        }
    }
    (texts, problems)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Vec<Unreadable>) {
    let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            problems.push(Unreadable {
                path: folder.to_owned(),
                why: format!("cannot be read: {}", error.kind()),
            });
            return;
        }
    };
    let mut paths: Vec<PathBuf> = listed.iter().map(std::fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let wanted = path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json");
        if hidden || files.len() >= FILES_MAX {
            continue;
        }
        if path.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, files, problems);
            }
        } else if wanted {
            files.push(path);
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("cannot be read: {}", error.kind());
    let kind = std::fs::metadata(path).map_err(told)?;
    if !kind.is_file() {
        return Err("expected a regular file, found something else".into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(told)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("expected at most {FILE_BYTES_MAX} bytes, found more"));
    }
    String::from_utf8(bytes).map_err(|_| "expected UTF-8, found something else".into())
}
