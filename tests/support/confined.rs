//! The program where it may not do what a test that runs as root may.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{BINARY, command, finish, has};

/// Changes the user of what it starts: an ID that owns nothing, on every Linux.
const SETPRIV: [&str; 5] = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"];
/// Starts something in a user namespace of its own, in which nobody can have an inotify instance.
const NO_INOTIFY: &str = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";

/// Starts something in a mount namespace of its own, in which a file is another.
const OTHER_RESOLV_CONF: &str = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";

/// The program with these arguments, bound by the permissions of files: root may read everything. Where the
/// tests run as root it runs as another user, from this directory, which that user may then read; `None`, told,
/// where that cannot be had.
pub fn bound_by_permissions(directory: &Path, arguments: &[&str]) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return Some(command(arguments));
    }
    if !has(&["setpriv"]) {
        return None;
    }
    // The build may be in a place where root alone can look.
    let binary = directory.join("twinlock");
    std::fs::copy(BINARY, &binary).expect("copied");
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("allowed");
    let mut confined = Command::new("setpriv");
    confined.args(SETPRIV).arg(binary);
    behind(confined, arguments, "change the user")
}

/// The program with these arguments, where the kernel tells nobody of changes of files; `None`, told, where that
/// cannot be had.
pub fn without_inotify(arguments: &[&str]) -> Option<Command> {
    if !has(&["unshare"]) {
        return None;
    }
    let mut confined = Command::new("unshare");
    confined.args(["--user", "--map-root-user", "sh", "-c", NO_INOTIFY, "sh", BINARY]);
    behind(confined, arguments, "make a user namespace")
}

/// The program with these arguments, where the system's resolv.conf is this one; `None`, told, where that cannot
/// be had.
pub fn with_resolv_conf(file: &Path, arguments: &[&str]) -> Option<Command> {
    if !has(&["unshare"]) {
        return None;
    }
    let mut confined = Command::new("unshare");
    confined.args(["--user", "--map-root-user", "--mount", "sh", "-c", OTHER_RESOLV_CONF, "sh"]);
    confined.arg(file).arg(BINARY);
    behind(confined, arguments, "make a mount namespace")
}

/// A command that becomes the program, if it can do what it is to do.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn behind(mut confined: Command, arguments: &[&str], what: &str) -> Option<Command> {
    let program = command(arguments);
    for (name, _) in program.get_envs() {
        confined.env_remove(name);
    }
    confined.stdin(Stdio::null());
    let mut trial = Command::new(confined.get_program());
    trial.args(confined.get_args()).arg("--version").stdin(Stdio::null());
    let (code, _, why) = finish(trial);
    if code != 0 {
        eprintln!("SKIPPED: cannot {what} here: {}", why.trim());
        return None;
    }
    confined.args(arguments);
    Some(confined)
}
