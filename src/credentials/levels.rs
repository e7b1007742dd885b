//! Where a change of files can come from: every directory on the way to them, through links.
//!
//! A directory entry is watched in the directory that holds it. A path through links has one such entry
//! for each link, and one for where it ends; what does not exist yet will appear in the last directory
//! that does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::layout;

/// Links that are followed before a path is given up as a loop, as the kernel does.
const LINKS_MAX: usize = 40;

/// Directories, and what in each concerns us.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Levels(BTreeMap<PathBuf, Names>);

/// Entries of a directory that concern us.
#[derive(Debug, PartialEq, Eq)]
pub enum Names {
    /// Whatever happens in it.
    All,
    /// These.
    Some(BTreeSet<OsString>),
}

impl Levels {
    /// The levels on the way to a path, with everything in it if it is a directory.
    pub fn to(path: &Path) -> Self {
        let mut levels = Self::default();
        if let Ok(absolute) = std::path::absolute(path)
            && let Some(end) = levels.walk(&absolute)
        {
            levels.0.insert(end, Names::All);
        }
        levels
    }

    /// The levels of a credential's directory and of the one that may be beside it.
    pub fn of(directory: &Path) -> Self {
        let mut levels = Self::default();
        for directory in std::iter::once(directory.to_owned()).chain(layout::apart(directory)) {
            // Resolved by hand, so that every link on the way is seen.
            let Ok(absolute) = std::path::absolute(&directory) else { continue };
            let Some(end) = levels.walk(&absolute) else { continue };
            for name in layout::FILES.into_iter().chain([layout::DATA]) {
                levels.walk(&end.join(name));
            }
            levels.0.insert(end, Names::All);
        }
        levels
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        for (directory, names) in other.0 {
            match names {
                Names::All => drop(self.0.insert(directory, Names::All)),
                Names::Some(names) => names.into_iter().for_each(|name| self.entry(&directory, name)),
            }
        }
    }

    /// The directories.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Whether a change of this path can be one of the files. An event names the path under the
    /// directory that is watched, or the directory itself.
    pub fn concern(&self, path: &Path) -> bool {
        let of_entry = path.parent().zip(path.file_name()).is_some_and(|(directory, name)| {
            match self.0.get(directory) {
                Some(Names::All) => true,
                Some(Names::Some(names)) => names.contains(name),
                None => false,
            }
        });
        // A busy directory is told of by its entries; itself it changes when it is moved or removed.
        of_entry || self.0.contains_key(path)
    }

    fn entry(&mut self, directory: &Path, name: OsString) {
        let names = self.0.entry(directory.to_owned()).or_insert_with(|| Names::Some(BTreeSet::new()));
        if let Names::Some(names) = names {
            names.insert(name);
        }
    }

    /// Follows an absolute path; its end without links, if there is one that is a directory.
    fn walk(&mut self, path: &Path) -> Option<PathBuf> {
        let mut rest: Vec<Component<'_>> = path.components().collect();
        rest.reverse();
        let mut rest: Vec<OsString> = rest.into_iter().map(|part| part.as_os_str().to_owned()).collect();
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = rest.pop() {
            match part.to_str() {
                Some("/" | ".") => continue,
                Some("..") => {
                    at.pop();
                    continue;
                }
                Some(_) | None => {}
            }
            let next = at.join(&part);
            let Ok(found) = std::fs::symlink_metadata(&next) else {
                self.entry(&at, part);
                return None;
            };
            if found.is_symlink() {
                self.entry(&at, part);
                links += 1;
                let target = std::fs::read_link(&next).ok().filter(|_| links <= LINKS_MAX)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(target.components().rev().map(|part| part.as_os_str().to_owned()));
                continue;
            }
            if rest.is_empty() {
                self.entry(&at, part);
            }
            at = next;
        }
        at.is_dir().then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The directory and the levels below it that are watched, as text.
    fn check(root: &Path, directory: &str, expected: &[(&str, &[&str])]) {
        let levels = Levels::of(&root.join(directory));
        let found = levels.0.iter().filter_map(|(path, names)| {
            let below = path.strip_prefix(root).ok()?.display().to_string();
            let names = match names {
                Names::All => vec!["*".to_owned()],
                Names::Some(names) => names.iter().map(|name| name.to_string_lossy().into_owned()).collect(),
            };
            Some((below, names))
        });
        let expected = expected.iter().map(|(path, names)| {
            ((*path).to_owned(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        });
        assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn every_link_on_the_way_is_a_level() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let root = root.as_path();
        check(root, "absent/set", &[("", &["absent"])]);
        std::fs::create_dir_all(root.join("real/set")).unwrap();
        check(root, "real/set", &[("real", &["set", "set-cacert"]), ("real/set", &["*"])]);
        symlink("real", root.join("current")).unwrap();
        let through = [("", &["current"][..]), ("real", &["set", "set-cacert"]), ("real/set", &["*"])];
        check(root, "current/set", &through);
        symlink(root.join("current/set"), root.join("mount")).unwrap();
        let twice =
            [("", &["current", "mount", "mount-cacert"][..]), ("real", &["set"]), ("real/set", &["*"])];
        check(root, "mount", &twice);
        symlink("loop", root.join("loop")).unwrap();
        check(root, "loop", &[("", &["loop", "loop-cacert"])]);
    }

    #[test]
    fn the_files_of_a_mounted_secret_are_followed_to_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("set/..one")).unwrap();
        std::fs::write(root.join("set/..one/tls.crt"), "").unwrap();
        symlink("..one", root.join("set/..data")).unwrap();
        symlink("..data/tls.crt", root.join("set/tls.crt")).unwrap();
        let levels = Levels::of(&root.join("set"));
        assert!(levels.concern(&root.join("set/..data")));
        assert!(levels.concern(&root.join("set/..one/tls.crt")));
        assert!(levels.concern(&root.join("set-cacert")));
        assert!(levels.concern(&root.join("set")));
        assert!(!levels.concern(&root.join("set/..one/other")));
        assert!(!levels.concern(&root.join("log.txt")));
        assert!(!levels.concern(Path::new("/elsewhere")));
    }
}
