//! Whether the kernel can tell what changes in a directory.

use std::path::Path;

use rustix::fs::{inotify, statfs};
use rustix::io::Errno;

/// File systems whose files may change elsewhere, unseen by this kernel.
const ELSEWHERE: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE or virtiofs"),
    (0x00C3_6400, "Ceph"),
    (0x786F_4256, "a VirtualBox share"),
];

/// Returns why inotify would not do in `dir`; nothing if it would.
#[must_use]
pub fn kernel_cannot(dir: &Path) -> Option<String> {
    if let Ok(found) = statfs(dir)
        && let Some((_, name)) =
            ELSEWHERE.iter().find(|(magic, _)| i64::from(*magic) == found.f_type)
    {
        return Some(format!("the files are on {name}, which tells this kernel no changes"));
    }
    let instance = match inotify::init(inotify::CreateFlags::CLOEXEC) {
        Ok(instance) => instance,
        Err(Errno::MFILE) => return Some(super::INSTANCES_USED_UP.to_owned()),
        Err(error) => return Some(format!("inotify failed: {}", error.kind())),
    };
    match inotify::add_watch(&instance, dir, inotify::WatchFlags::CREATE) {
        Err(Errno::NOSPC) => Some(super::WATCHES_USED_UP.to_owned()),
        // What is not there yet is no reason to poll.
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_needs_no_polling() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kernel_cannot(dir.path()), None);
        assert_eq!(kernel_cannot(&dir.path().join("missing")), None);
    }
}
