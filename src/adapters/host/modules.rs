//! Trees of installed modules: copied for another preview, and counted while
//! they grow.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::program_within;
use crate::domain::failure::{Code, Failure};
use crate::ports::host::ModulesSize;

/// A gigabyte of small files on a slow disk.
const COPY_TIME_MAX: Duration = Duration::from_secs(300);

/// Counting takes a fraction of an install's time, however large it is.
const ENTRIES_MAX: u64 = 200_000;

/// Copies a tree. Blocks are shared where the file system can (`reflink`), and
/// copied elsewhere; never inodes, see ADR 0035.
pub(super) async fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let (source, target) = (from.display().to_string(), to.display().to_string());
    let args = ["--archive", "--reflink=auto", "--no-target-directory", "--", &source, &target];
    program_within(COPY_TIME_MAX, "cp", &args, None).await.map(drop).map_err(|error| {
        tracing::warn!(error, "copying modules");
        let full = error.to_lowercase().contains("no space left on device");
        let code = if full { Code::BuildDiskFull } else { Code::WorkspaceIo };
        Failure::new(code, "the modules of another preview could not be copied")
    })
}

/// Counts packages and bytes, following no link.
pub(super) fn measure(path: &Path) -> ModulesSize {
    let mut size = ModulesSize::default();
    let mut waiting = vec![path.to_owned()];
    let mut seen = 0_u64;
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            seen += 1;
            if seen > ENTRIES_MAX {
                return size;
            }
            let Ok(found) = entry.metadata() else { continue };
            size.bytes += found.blocks() * 512;
            let name = entry.file_name();
            if name == "package.json" && is_package(&directory) {
                size.packages += 1;
            }
            if found.is_dir() {
                // How pip and its like note that a package is there.
                size.packages +=
                    u64::from(Path::new(&name).extension().is_some_and(|end| end == "dist-info"));
                waiting.push(entry.path());
            }
        }
    }
    size
}

/// `node_modules/name` and `node_modules/@scope/name`; the tree itself may have
/// any name while it is filled.
fn is_package(directory: &Path) -> bool {
    let Some(parent) = directory.parent() else { return false };
    let is_scope = parent.file_name().is_some_and(|name| name.to_string_lossy().starts_with('@'));
    let modules = if is_scope { parent.parent() } else { Some(parent) };
    modules.and_then(Path::file_name).is_some_and(|name| {
        let name = name.to_string_lossy();
        name == "node_modules" || name.starts_with("modules")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }

    #[test]
    fn packages_are_counted_as_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("modules.new-0123abcd");
        assert_eq!(measure(&modules), ModulesSize::default());
        for name in ["a/package.json", "@s/b/package.json", "a/node_modules/c/package.json"] {
            write(&modules.join(name));
        }
        write(&modules.join("a/lib/package.json"));
        write(&modules.join("lib/python3.11/site-packages/idna-3.7.dist-info/METADATA"));
        let size = measure(&modules);
        assert_eq!(size.packages, 4);
        assert!(size.bytes > 0);
    }

    #[tokio::test]
    async fn a_copy_shares_no_inode() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        write(&from.join("x/package.json"));
        std::os::unix::fs::symlink("x/package.json", from.join("link")).unwrap();
        copy(&from, &to).await.unwrap();
        fs::write(to.join("x/package.json"), "changed").unwrap();
        assert_eq!(fs::read_to_string(from.join("x/package.json")).unwrap(), "{}");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("x/package.json"));
    }
}
