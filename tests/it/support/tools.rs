//! Tools of the machine that tests need, and what is said where there are none.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Says it on stderr, where `cargo test` does not capture it.
pub(crate) fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr().lock(), "\n== SKIPPED: {what}: {why}");
}

/// The path of strace, if it is installed and may trace.
pub(crate) fn strace() -> Option<PathBuf> {
    let strace = program("strace")?;
    let mut trial = Command::new(&strace);
    trial.args(["-D", "-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true"]);
    let works = trial.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    works.then_some(strace)
}

/// The path of a program, if it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A small file system in memory; it is unmounted when this is dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn new(folder: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&folder).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&folder).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    pub(crate) fn becomes(&self, size: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
