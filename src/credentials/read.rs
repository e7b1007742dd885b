//! The bytes of a credential directory, read as one set.
//!
//! The link `..data` of a mounted Kubernetes secret is resolved once, and every file is opened relative
//! to the directory it led to. If that directory is another one when the last file has been read, the
//! reading starts over: half of a generation that was being removed looks like a whole one that lacks files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::layout;

/// Kubernetes refuses secrets over 1 MiB; a larger file is a mistake or an attack.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// A revocation list grows with what is revoked: some 40 bytes a certificate.
const CRL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Readings of a directory that is another one each time they end.
pub const ATTEMPTS: usize = 16;

/// The files of a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// Those of the credential's own directory.
    pub own: Set,
    /// Those of the directory beside it that holds its CA, if there is one.
    pub apart: Option<Set>,
}

/// The known files of one directory that are there.
#[derive(Clone, PartialEq, Eq)]
pub struct Set {
    directory: PathBuf,
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Whether it was behind a link that is swapped, and so is as its writer meant it.
    swapped: bool,
}

/// SHA-256 over everything that was read.
pub type Fingerprint = [u8; 32];

impl Content {
    /// Whether it is as one writer meant it: not edited file by file, nor put together of two secrets.
    pub fn is_of_one_piece(&self) -> bool {
        self.own.swapped && self.apart.is_none()
    }

    /// A digest of it all: equal for equal contents, and keeps no key in memory.
    pub fn fingerprint(&self) -> Fingerprint {
        let sets = std::iter::once(&self.own).chain(&self.apart);
        fingerprint(sets.map(|set| set.files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))))
    }
}

/// A digest of sets of files: equal for equal names and contents.
pub fn fingerprint<'file>(
    sets: impl IntoIterator<Item = impl ExactSizeIterator<Item = (&'file str, &'file [u8])>>,
) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    for files in sets {
        // Counts and lengths keep the parts apart; an absent file is not an empty one.
        context.update(&(files.len() as u64).to_be_bytes());
        for (name, bytes) in files {
            context.update(&(name.len() as u64).to_be_bytes());
            context.update(name.as_bytes());
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        }
    }
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

impl Set {
    /// A set that was not read from a directory.
    pub fn new(directory: PathBuf, files: BTreeMap<&'static str, Vec<u8>>) -> Self {
        Self { directory, files, swapped: false }
    }

    /// The bytes of a file, if it is there.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Whether a file is there and holds anything.
    pub fn holds(&self, name: &str) -> bool {
        self.get(name).is_some_and(|bytes| !bytes.is_empty())
    }

    /// Where a file of this name is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl fmt::Debug for Content {
    /// Never the bytes: one of the files is a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("own", &self.own).field("apart", &self.apart).finish()
    }
}

impl fmt::Debug for Set {
    /// Never the bytes: one of the files is a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set")
            .field("directory", &self.directory)
            .field("files", &self.files.keys())
            .finish_non_exhaustive()
    }
}

/// Why a directory could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The directory itself, or one of its files.
    Io(PathBuf, io::Error),
    /// Something that is not a regular file: a FIFO would never end, a device may do anything.
    NotAFile(PathBuf),
    /// More than such a file can need.
    TooLarge(PathBuf, u64),
    /// Every time it had been read it was another directory.
    Restless(PathBuf),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot read {}: {}", path.display(), lower(error)),
            Self::NotAFile(path) => {
                write!(f, "expected a regular file, found something else: {}", path.display())
            }
            Self::TooLarge(path, max) => {
                write!(f, "expected a file of at most {max} bytes, found a larger one: {}", path.display())
            }
            Self::Restless(path) => {
                write!(
                    f,
                    "expected a directory that rests, found another one {ATTEMPTS} times: {}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for ReadError {}

impl ReadError {
    /// Whether it is that this directory itself is not there.
    pub fn is_absence_of(&self, directory: &Path) -> bool {
        matches!(self, Self::Io(path, error) if path == directory && error.kind() == io::ErrorKind::NotFound)
    }
}

/// The system's words for an error, in our case and without its number.
pub(crate) fn lower(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Reads the directory of a credential, and the one beside it that holds its CA, if there is one.
pub fn read(directory: &Path) -> Result<Content, ReadError> {
    let own = read_set(directory)?;
    let apart = match layout::apart(directory) {
        Some(apart) => match read_set(&apart) {
            Err(error) if error.is_absence_of(&apart) => None,
            read => Some(read?),
        },
        None => None,
    };
    Ok(Content { own, apart })
}

fn read_set(directory: &Path) -> Result<Set, ReadError> {
    for _ in 0..ATTEMPTS {
        let place = Place::of(directory)?;
        let files = read_files(&place.at, directory);
        // What failed may have failed because the place is gone, which is seen here as well.
        if place.is_still() {
            let swapped = place.is_swapped;
            return Ok(Set { directory: place.directory, files: files?, swapped });
        }
    }
    Err(ReadError::Restless(directory.to_owned()))
}

/// Where the files of a directory are at a moment. Whoever reads them asks before and after whether it is the same.
pub struct Place {
    directory: PathBuf,
    at: OwnedFd,
    /// Whether it is behind a link that is swapped, so that its files are as their writer meant them.
    pub is_swapped: bool,
}

impl Place {
    /// The place at this moment.
    pub fn of(directory: &Path) -> Result<Self, ReadError> {
        let (at, is_swapped) = open_place(directory)?;
        Ok(Self { directory: directory.to_owned(), at, is_swapped })
    }

    /// Whether the files are there still.
    pub fn is_still(&self) -> bool {
        is_still(&self.directory, &self.at)
    }
}

/// Where the files of a directory are at this moment: itself, or, with `true`, what its `..data` leads to.
fn open_place(directory: &Path) -> Result<(OwnedFd, bool), ReadError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, directory, flags, Mode::empty())
        .map_err(|error| ReadError::Io(directory.to_owned(), error.into()))?;
    let mut failed = Errno::NOENT;
    for _ in 0..ATTEMPTS {
        match openat(root.as_fd(), layout::DATA, flags, Mode::empty()) {
            Ok(place) => return Ok((place, true)),
            // The link can be swapped, and what it led to removed, between its reading and its following.
            // To take the directory for one without a link then would be to read its files one by one.
            Err(Errno::NOENT) if is_there(&root, layout::DATA) => {}
            Err(Errno::NOENT) => return Ok((root, false)),
            Err(error) => {
                failed = error;
                break;
            }
        }
    }
    Err(ReadError::Io(directory.join(layout::DATA), failed.into()))
}

/// Whether there is an entry of this name, wherever it leads.
fn is_there(directory: &OwnedFd, name: &str) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn is_still(directory: &Path, place: &OwnedFd) -> bool {
    let identity = |place: &OwnedFd| fstat(place).ok().map(|stat| (stat.st_dev, stat.st_ino));
    open_place(directory).is_ok_and(|(now, _)| identity(&now) == identity(place))
}

fn read_files(place: &OwnedFd, directory: &Path) -> Result<BTreeMap<&'static str, Vec<u8>>, ReadError> {
    let mut files = BTreeMap::new();
    for name in layout::FILES {
        if let Some(bytes) = read_file(place, directory, name)? {
            files.insert(name, bytes);
        }
    }
    Ok(files)
}

fn read_file(place: &OwnedFd, directory: &Path, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
    let path = || directory.join(name);
    // Non-blocking, so that opening a FIFO returns and can be refused.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(place.as_fd(), name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(ReadError::Io(path(), error.into())),
    };
    let stat = fstat(&file).map_err(|error| ReadError::Io(path(), error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ReadError::NotAFile(path()));
    }
    let max = if layout::is_crl(name) { CRL_BYTES_MAX } else { FILE_BYTES_MAX };
    let mut bytes = Vec::new();
    let read = File::from(file).take(max + 1).read_to_end(&mut bytes);
    read.map_err(|error| ReadError::Io(path(), error))?;
    if bytes.len() as u64 > max {
        return Err(ReadError::TooLarge(path(), max));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_mounted_secret_is_read_through_its_data_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("..one")).unwrap();
        std::fs::write(dir.path().join("..one/tls.crt"), "one").unwrap();
        symlink("..one", dir.path().join("..data")).unwrap();
        symlink("..data/tls.crt", dir.path().join("tls.crt")).unwrap();
        let content = read(dir.path()).unwrap();
        assert_eq!(content.own.get("tls.crt"), Some(&b"one"[..]));
        assert_eq!(content.own.get("tls.key"), None);
    }

    #[test]
    fn two_generations_are_never_mixed_nor_one_seen_without_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("secret");
        std::fs::create_dir(&place).unwrap();
        let publish = |version: usize| {
            let folder = place.join(format!("..{version}"));
            std::fs::create_dir(&folder).unwrap();
            for name in ["tls.crt", "tls.key", "ca.crt"] {
                std::fs::write(folder.join(name), version.to_string()).unwrap();
            }
            symlink(format!("..{version}"), place.join("..data_tmp")).unwrap();
            std::fs::rename(place.join("..data_tmp"), place.join("..data")).unwrap();
            if version > 0 {
                std::fs::remove_dir_all(place.join(format!("..{}", version - 1))).unwrap();
            }
        };
        publish(0);
        let (enough, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // On a busy machine whoever reads may get its turn seldom.
                (1..100_000)
                    .take_while(|version| *version < 500 || !enough.load(Ordering::Acquire))
                    .for_each(publish);
                ended.store(true, Ordering::Release);
            });
            let mut seen = std::collections::BTreeSet::new();
            while !ended.load(Ordering::Acquire) {
                let Content { own, .. } = match read(&place) {
                    Ok(content) => content,
                    // Faster than anything that a kubelet does.
                    Err(ReadError::Restless(_)) => continue,
                    Err(error) => panic!("{error}"),
                };
                let versions = ["tls.crt", "tls.key", "ca.crt"].map(|name| own.get(name));
                assert!(versions[0].is_some() && versions.iter().all(|version| *version == versions[0]));
                seen.insert(versions[0].map(<[u8]>::to_vec));
                enough.store(seen.len() > 10, Ordering::Release);
            }
            assert!(seen.len() > 10, "only {} generations were seen", seen.len());
        });
    }

    #[test]
    fn a_data_link_that_leads_nowhere_is_no_reason_to_read_what_is_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (own, apart) = (dir.path().join("mysql"), dir.path().join("mysql-cacert"));
        for place in [&own, &apart] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("ca.crt"), "of another time").unwrap();
        }
        for place in [&own, &apart] {
            symlink("..gone", place.join("..data")).unwrap();
            let message = read(&own).unwrap_err().to_string();
            assert!(message.ends_with("..data: no such file or directory"), "{message}");
            assert!(message.contains(&place.display().to_string()), "{message}");
            std::fs::remove_file(place.join("..data")).unwrap();
        }
        assert!(read(&own).is_ok());
    }

    #[test]
    fn what_is_not_a_small_regular_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tls.crt")).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("expected a regular file"));
        std::fs::remove_dir(dir.path().join("tls.crt")).unwrap();
        for (name, size) in [("tls.key", FILE_BYTES_MAX + 1), ("crl", 1 << 30)] {
            File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
            let message = read(dir.path()).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("larger"), "{message}");
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(read(&dir.path().join("loop")).is_err());
        let absent = read(&dir.path().join("absent")).unwrap_err();
        assert!(absent.to_string().ends_with("no such file or directory"));
    }

    #[test]
    fn a_fifo_is_refused_and_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(read(dir.path()), Err(ReadError::NotAFile(found)) if found == path));
    }

    #[test]
    fn the_directory_beside_is_read_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("mysql");
        std::fs::create_dir(&own).unwrap();
        assert!(read(&own).unwrap().apart.is_none());
        let without = read(&own).unwrap().fingerprint();
        std::fs::create_dir(dir.path().join("mysql-cacert")).unwrap();
        std::fs::write(dir.path().join("mysql-cacert/cacert"), "a CA").unwrap();
        let content = read(&own).unwrap();
        assert!(content.apart.as_ref().unwrap().holds("cacert"));
        assert_ne!(content.fingerprint(), without);
        // A directory that is a CA's own has none beside it.
        std::fs::create_dir(dir.path().join("mysql-cacert-cacert")).unwrap();
        assert!(read(&dir.path().join("mysql-cacert")).unwrap().apart.is_none());
        std::fs::remove_dir_all(dir.path().join("mysql-cacert")).unwrap();
        std::fs::write(dir.path().join("mysql-cacert"), "no directory").unwrap();
        assert!(read(&own).unwrap_err().to_string().contains("not a directory"));
    }
}
