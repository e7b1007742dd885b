//! Which file of a credential directory is what, and how they are read as one set.
//!
//! The layout is that of a mounted Kubernetes secret: `tls.crt`, `tls.key` and `ca.crt`, plain or as
//! links through `..data`. That link is resolved once, and every file is opened relative to the
//! directory it led to, so a swap in the middle of a read cannot mix two generations.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// The certificate chain, leaf first.
pub const CHAIN: &str = "tls.crt";
/// The private key of the leaf.
pub const KEY: &str = "tls.key";
/// The CA certificates that verify the other side.
pub const CA: &str = "ca.crt";

/// Kubernetes refuses secrets over 1 MiB; a larger file is a mistake or an attack.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The bytes of a credential directory, read as one set; `None` where there is no such file.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    /// `tls.crt`.
    pub chain: Option<Vec<u8>>,
    /// `tls.key`.
    pub key: Option<Vec<u8>>,
    /// `ca.crt`.
    pub ca: Option<Vec<u8>>,
}

impl Files {
    /// A digest of the whole set: equal for equal contents, and keeps no key in memory.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut context = digest::Context::new(&digest::SHA256);
        for file in [&self.chain, &self.key, &self.ca] {
            // Lengths keep the parts apart; an absent file is not an empty one.
            let length = file.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(file.as_deref().unwrap_or_default());
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(context.finish().as_ref());
        fingerprint
    }
}

/// SHA-256 over the files of a set.
pub type Fingerprint = [u8; 32];

impl fmt::Debug for Files {
    /// Never the bytes: one of the files is a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// Why a directory could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The directory itself, or one of its files.
    Io(PathBuf, io::Error),
    /// Something that is not a regular file: a FIFO would never end, a device may do anything.
    NotAFile(PathBuf),
    /// More than a Kubernetes secret can hold, 1 MiB.
    TooLarge(PathBuf),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot read {}: {}", path.display(), lower(error)),
            Self::NotAFile(path) => {
                write!(f, "expected a regular file, found something else: {}", path.display())
            }
            Self::TooLarge(path) => {
                write!(
                    f,
                    "expected a file of at most {FILE_BYTES_MAX} bytes, found a larger one: {}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// The system's words for an error, in our case and without its number.
pub(crate) fn lower(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Reads every file of the layout that is there.
pub fn read(directory: &Path) -> Result<Files, ReadError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |at: &OwnedFd, name: &str| openat(at.as_fd(), name, flags, Mode::empty());
    let root = openat(CWD, directory, flags, Mode::empty())
        .map_err(|error| ReadError::Io(directory.to_owned(), error.into()))?;
    // A mounted secret: its files live in the directory that `..data` names at this moment.
    let set = match open(&root, "..data") {
        Ok(set) => set,
        Err(rustix::io::Errno::NOENT) => root,
        Err(error) => return Err(ReadError::Io(directory.join("..data"), error.into())),
    };
    Ok(Files {
        chain: read_file(&set, directory, CHAIN)?,
        key: read_file(&set, directory, KEY)?,
        ca: read_file(&set, directory, CA)?,
    })
}

fn read_file(set: &OwnedFd, directory: &Path, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
    let path = || directory.join(name);
    // Non-blocking, so that opening a FIFO returns and can be refused.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(set.as_fd(), name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(ReadError::Io(path(), error.into())),
    };
    let stat = fstat(&file).map_err(|error| ReadError::Io(path(), error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ReadError::NotAFile(path()));
    }
    let mut bytes = Vec::new();
    let read = File::from(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| ReadError::Io(path(), error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge(path()));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_mounted_secret_is_read_through_its_data_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("..one")).unwrap();
        std::fs::write(dir.path().join("..one/tls.crt"), "one").unwrap();
        symlink("..one", dir.path().join("..data")).unwrap();
        symlink("..data/tls.crt", dir.path().join("tls.crt")).unwrap();
        let files = read(dir.path()).unwrap();
        assert_eq!(files.chain.as_deref(), Some(&b"one"[..]));
        assert_eq!(files.key, None);
    }

    #[test]
    fn what_is_not_a_small_regular_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tls.crt")).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("expected a regular file"));
        std::fs::remove_dir(dir.path().join("tls.crt")).unwrap();
        let large = File::create(dir.path().join("tls.key")).unwrap();
        large.set_len(FILE_BYTES_MAX + 1).unwrap();
        let message = read(dir.path()).unwrap_err().to_string();
        assert!(message.contains("tls.key") && message.contains("larger"), "{message}");
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(read(&dir.path().join("loop")).is_err());
        assert!(
            read(&dir.path().join("absent")).unwrap_err().to_string().ends_with("no such file or directory")
        );
    }

    #[test]
    fn a_fifo_is_refused_and_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(read(dir.path()), Err(ReadError::NotAFile(found)) if found == path));
    }
}
