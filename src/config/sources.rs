//! The files of a configuration: which they are, their text, and where in it something is.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{Node, Spot};
use crate::credentials::levels::Levels;
use crate::credentials::read::{ATTEMPTS, Fingerprint, Place as Directory, fingerprint, lower};

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

/// The texts of a configuration at a moment.
#[derive(Debug, Default)]
pub struct Reading {
    /// Each with the path of its file.
    pub texts: Vec<(String, String)>,
    /// What is not read.
    pub unreadable: Vec<Unreadable>,
    /// Whether they are as one writer meant them: not edited file by file, nor put together of two folders.
    pub is_of_one_piece: bool,
}

impl Reading {
    /// A digest of it all: equal for equal contents.
    pub fn fingerprint(&self) -> Fingerprint {
        let read = self.texts.iter().map(|(name, text)| (name.clone(), text.as_str()));
        let unreadable =
            self.unreadable.iter().map(|problem| (problem.path.display().to_string(), problem.why.as_str()));
        let sets: [Vec<_>; 2] = [read.collect(), unreadable.collect()];
        fingerprint(sets.iter().map(|set| set.iter().map(|(name, text)| (name.as_str(), text.as_bytes()))))
    }
}

/// Finds and reads the files: those that are given, and below folders every `*.yaml`, `*.yml` and `*.json`,
/// in the order of their paths. Names that begin with a dot are passed over, and with them the folders of a
/// mounted `ConfigMap`, whose files are links into one of these. If such a link is swapped while its files are read,
/// they are read again.
pub fn read(paths: &[PathBuf]) -> Reading {
    let mut reading = Reading::default();
    for _ in 0..ATTEMPTS {
        let found = Found::below(paths);
        let (mut swapped, mut is_still) = (Vec::new(), true);
        for folder in &found.folders {
            match Directory::of(folder) {
                // What is not swapped cannot be read as one, and need not be kept open.
                Ok(place) => swapped.extend(Some(place).filter(|place| place.is_swapped)),
                Err(_) => is_still = false,
            }
        }
        let is_of_one_piece = found.folders.len() == 1 && swapped.len() == 1;
        reading = Reading { unreadable: found.problems, is_of_one_piece, ..Reading::default() };
        for path in found.files {
            match read_file(&path) {
                Ok(text) => reading.texts.push((path.display().to_string(), text)),
                Err(why) => reading.unreadable.push(Unreadable { path, why }),
            }
        }
        if is_still && swapped.iter().all(Directory::is_still) {
            return reading;
        }
    }
    if reading.unreadable.is_empty() {
        let path = paths.first().cloned().unwrap_or_default();
        let why = format!("expected a folder that rests, found another one {ATTEMPTS} times");
        reading.unreadable.push(Unreadable { path, why });
    }
    reading
}

/// Where a change of the files can come from.
pub fn levels(paths: &[PathBuf]) -> Levels {
    let found = Found::below(paths);
    let mut levels = Levels::default();
    paths.iter().chain(&found.folders).for_each(|path| levels.add(Levels::to(path)));
    for link in found.files.iter().filter(|file| file.is_symlink()) {
        levels.add(Levels::to(link));
    }
    levels
}

/// What is below the paths that are given.
#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    problems: Vec<Unreadable>,
}

impl Found {
    fn below(paths: &[PathBuf]) -> Self {
        let mut found = Self::default();
        for path in paths {
            if path.is_dir() {
                walk(path, 0, &mut found);
            } else {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                found.folders.push(folder.unwrap_or(Path::new(".")).to_owned());
                found.files.push(path.clone());
            }
        }
        found.files.truncate(FILES_MAX);
        found
    }
}

fn walk(folder: &Path, depth: usize, found: &mut Found) {
    found.folders.push(folder.to_owned());
    let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            found.problems.push(Unreadable {
                path: folder.to_owned(),
                why: format!("cannot be read: {}", lower(&error)),
            });
            return;
        }
    };
    let mut paths: Vec<PathBuf> = listed.iter().map(std::fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let wanted = path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json");
        if hidden || found.files.len() >= FILES_MAX {
            continue;
        }
        if path.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, found);
            }
        } else if wanted {
            found.files.push(path);
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("cannot be read: {}", lower(&error));
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn two_versions_of_a_mounted_folder_are_never_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a.yaml", "b.yaml", "c.yaml"];
        let publish = |version: usize| {
            let folder = dir.path().join(format!("..{version}"));
            std::fs::create_dir(&folder).unwrap();
            for name in names {
                std::fs::write(folder.join(name), version.to_string()).unwrap();
            }
            symlink(format!("..{version}"), dir.path().join("..data_tmp")).unwrap();
            std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
            if version > 0 {
                std::fs::remove_dir_all(dir.path().join(format!("..{}", version - 1))).unwrap();
            }
        };
        publish(0);
        for name in names {
            symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
        }
        let (enough, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // On a busy machine whoever reads may get its turn seldom.
                (1..100_000)
                    .take_while(|version| *version < 300 || !enough.load(Ordering::Acquire))
                    .for_each(publish);
                ended.store(true, Ordering::Release);
            });
            let mut seen = std::collections::BTreeSet::new();
            while !ended.load(Ordering::Acquire) {
                let reading = read(&[dir.path().to_owned()]);
                // Faster than anything that a kubelet does.
                if reading.unreadable.is_empty() {
                    assert!(reading.is_of_one_piece);
                    let texts: Vec<_> = reading.texts.iter().map(|(_, text)| text.as_str()).collect();
                    assert!(texts.len() == 3 && texts.iter().all(|text| *text == texts[0]), "{texts:?}");
                    seen.insert(texts[0].to_owned());
                    enough.store(seen.len() > 10, Ordering::Release);
                }
            }
            assert!(seen.len() > 10, "only {} versions were seen", seen.len());
        });
    }

    #[test]
    fn a_change_can_come_from_every_folder_and_from_where_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("config/below")).unwrap();
        std::fs::create_dir(root.join("elsewhere")).unwrap();
        std::fs::write(root.join("elsewhere/linked.yaml"), "").unwrap();
        symlink(root.join("elsewhere/linked.yaml"), root.join("config/linked.yaml")).unwrap();
        let levels = levels(&[root.join("config")]);
        for inside in
            ["config", "config/a.yaml", "config/..data", "config/below/b.yaml", "elsewhere/linked.yaml"]
        {
            assert!(levels.concern(&root.join(inside)), "{inside}");
        }
        for outside in ["elsewhere/other.yaml", "other"] {
            assert!(!levels.concern(&root.join(outside)), "{outside}");
        }
    }

    #[test]
    fn the_fingerprint_is_that_of_names_and_contents() {
        let of = |texts: &[(&str, &str)], unreadable: &[(&str, &str)]| {
            let own =
                |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            let unreadable =
                unreadable.iter().map(|(path, why)| Unreadable { path: path.into(), why: (*why).into() });
            Reading { texts: own(texts), unreadable: unreadable.collect(), is_of_one_piece: true }
                .fingerprint()
        };
        let all = [
            of(&[], &[]),
            of(&[("a", "b")], &[]),
            of(&[("ab", "")], &[]),
            of(&[("a", "b"), ("c", "")], &[]),
            of(&[], &[("a", "b")]),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(of(&[("a", "b")], &[]), all[1]);
    }
}
