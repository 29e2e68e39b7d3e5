//! Directories and files of the host.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};

use sha2::{Digest, Sha256};

use super::{io_failure, program};
use crate::domain::failure::{Code, Failure};
use crate::ports::host::{Finding, HostResources, WorkspaceDir};

/// Where the markers of workspaces lie, beside them.
const MARKERS: &str = ".covibes";

pub(super) fn resources(roots: &[PathBuf]) -> Result<HostResources, Failure> {
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(io_failure("reading memory"))?;
    let memory_kib: u64 = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0);
    let path = roots.iter().find(|r| r.exists()).map_or(Path::new("/"), PathBuf::as_path);
    let disk = rustix::fs::statvfs(path).map_err(|e| io_failure("reading disk")(e.into()))?;
    // As `df` reckons: what root keeps for itself, or a quota hides, is neither used nor free.
    let used_blocks = disk.f_blocks.saturating_sub(disk.f_bfree);
    let used = used_blocks as f64 / (used_blocks + disk.f_bavail).max(1) as f64;
    Ok(HostResources {
        memory_bytes: memory_kib * 1024,
        cpus: std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
        disk_used: used,
        disk_available_bytes: disk.f_bavail * disk.f_frsize,
    })
}

/// The whole block device under a path: limits on a partition are refused.
pub(super) fn block_device(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let dev = fs::metadata(existing).ok()?.dev();
    let link = fs::read_link(format!(
        "/sys/dev/block/{}:{}",
        rustix::fs::major(dev),
        rustix::fs::minor(dev)
    ))
    .ok()?;
    let name = link.file_name()?.to_str()?.to_owned();
    let parent = link.parent()?.file_name()?.to_str()?.to_owned();
    // A partition's directory lies in its disk's; a disk's in `block`.
    let disk = if parent == "block" { name } else { parent };
    let device = Path::new("/dev").join(disk);
    device.exists().then_some(device)
}

pub(super) fn ensure_dir(path: &Path, uid: u32, gid: u32) -> Result<(), Failure> {
    let failed = io_failure("making a directory");
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(&failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(Failure::new(
                Code::WorkspaceForeign,
                "something that is no directory has the place of one",
            ));
        }
        Err(_) => fs::DirBuilder::new().mode(0o755).create(path).map_err(&failed)?,
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(&failed)?;
    // The process's umask may be tighter than the contract's 022.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(&failed)
}

fn marker(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.join(MARKERS).join(path.file_name()?))
}

pub(super) fn ensure_workspace(path: &Path, uid: u32, gid: u32) -> Result<WorkspaceDir, Failure> {
    let failed = io_failure("making the workspace");
    let marker = marker(path)
        .ok_or_else(|| Failure::new(Code::InternalBug, "a workspace without a parent"))?;
    let there = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => true,
        Ok(_) => {
            return Err(Failure::new(
                Code::WorkspaceForeign,
                "the workspace's place is taken by something that is no directory",
            ));
        }
        Err(_) => false,
    };
    if there {
        return Ok(if marker.exists() { WorkspaceDir::Ours } else { WorkspaceDir::Foreign });
    }
    if let Some(parent) = marker.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(&failed)?;
    }
    // Marker first: a crash in between leaves a marker without a directory,
    // which harms nobody.
    write_file(&marker, b"made by covibes\n", 0o600, 0)?;
    ensure_dir(path, uid, gid)?;
    Ok(WorkspaceDir::Created)
}

pub(super) fn is_own_workspace(path: &Path) -> bool {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    is_dir && marker(path).is_some_and(|m| m.exists())
}

pub(super) fn forget(path: &Path) -> Result<(), Failure> {
    for companion in [marker(path), Some(image_of(path))].into_iter().flatten() {
        match fs::remove_file(&companion) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_failure("removing a marker")(e)),
        }
    }
    Ok(())
}

/// Opens the parent of `relative` below `workspace` through no link.
fn open_parent(
    workspace: &Path,
    relative: &str,
) -> Result<(std::os::fd::OwnedFd, String), Failure> {
    let refused = || {
        Failure::new(
            Code::WorkspaceSymlinkRefused,
            format!("{relative} cannot be a mount point: a link or file is in its way"),
        )
    };
    let relative_path = Path::new(relative);
    let name = relative_path.file_name().and_then(|n| n.to_str()).ok_or_else(refused)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(workspace, directory, Mode::empty())
        .map_err(|e| io_failure("opening the workspace")(e.into()))?;
    let parent = match relative_path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => rustix::fs::openat2(
            &root,
            parent,
            directory,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
        .map_err(|_| refused())?,
        _ => root,
    };
    Ok((parent, name.to_owned()))
}

pub(super) fn ensure_mount_point(
    workspace: &Path,
    relative: &str,
    uid: u32,
    gid: u32,
) -> Result<bool, Failure> {
    let (parent, name) = open_parent(workspace, relative)?;
    if let Ok(stat) = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
        return if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            Ok(false)
        } else {
            Err(Failure::new(
                Code::WorkspaceMountPoint,
                format!("{relative} is no directory, and the preview needs one of its own there"),
            ))
        };
    }
    let failed = |e: rustix::io::Errno| io_failure("making a mount point")(e.into());
    rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)).map_err(failed)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed)?;
    Ok(true)
}

pub(super) fn remove_mount_point(workspace: &Path, relative: &str) {
    let Ok((parent, name)) = open_parent(workspace, relative) else { return };
    // `rmdir` only removes an empty directory; what somebody filled stays.
    if rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR).is_err()
        && let Ok(target) = rustix::fs::readlinkat(&parent, &name, Vec::new())
        && target.to_bytes().starts_with(b"/app/")
    {
        let _ = rustix::fs::unlinkat(&parent, &name, AtFlags::empty());
    }
}

/// What keeps an overlay's upper directory from lying here, by the file system of the nearest
/// directory that exists.
pub(super) fn overlay_finding(path: &Path) -> Option<Finding> {
    let there = path.ancestors().find(|place| place.exists())?;
    let facts = rustix::fs::statfs(there).ok()?;
    let name = unfit_for_overlays(u64::try_from(facts.f_type).ok()?)?;
    Some(Finding {
        subject: "overlay",
        message: format!(
            "{} lies on {name}, on which Docker mounts no overlay, so every install would fail: \
             set `paths.data` to a directory on ext4, xfs or btrfs (in a container: a volume or a \
             bind mount of the host)",
            path.display()
        ),
    })
}

/// File systems that cannot hold the upper directory of an overlay, by their number in statfs(2).
fn unfit_for_overlays(number: u64) -> Option<&'static str> {
    match number & 0xFFFF_FFFF {
        0x794C_7630 => Some("an overlay, as in a container"),
        0x6969 => Some("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x4D44 | 0x2011_BAB0 => Some("FAT"),
        0x6573_5546 => Some("FUSE"),
        _ => None,
    }
}

pub(super) fn ensure_link(workspace: &Path, relative: &str, target: &str) -> bool {
    let Ok((parent, name)) = open_parent(workspace, relative) else { return false };
    rustix::fs::symlinkat(target, &parent, &name).is_ok()
}

/// Entries named `prefix` and eight hexadecimal digits.
pub(super) fn leftovers(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let is_run = |rest: &str| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().and_then(|n| n.strip_prefix(prefix)).is_some_and(is_run)
        })
        .map(|entry| entry.path())
        .collect()
}

pub(super) fn swap_dir(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = io_failure("swapping a directory in");
    let is_dir = fs::symlink_metadata(to).is_ok_and(|m| m.is_dir());
    if is_dir {
        // In one step, so that a crash leaves the old tree or the new one.
        rustix::fs::renameat_with(CWD, from, CWD, to, rustix::fs::RenameFlags::EXCHANGE)
            .map_err(|e| failed(e.into()))
    } else {
        fs::rename(from, to).map_err(failed)
    }
}

/// The names in a directory, in order.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>, Failure> {
    let failed = io_failure("reading a directory");
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no text is none of ours.
        names.extend(entry.map_err(&failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

pub(super) fn write_file(path: &Path, content: &[u8], mode: u32, uid: u32) -> Result<(), Failure> {
    let failed = io_failure("writing a file");
    let parent =
        path.parent().ok_or_else(|| Failure::new(Code::InternalBug, "a file without a parent"))?;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(&failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Several processes of a host may write the same file at once.
    name.push(format!(".new-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary).map_err(&failed)?;
    file.write_all(content).map_err(&failed)?;
    std::os::unix::fs::fchown(&file, Some(uid), Some(uid)).map_err(&failed)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(&failed)?;
    file.sync_all().map_err(&failed)?;
    fs::rename(&temporary, path).map_err(&failed)
}

pub(super) fn digest(path: &Path) -> Result<Option<String>, Failure> {
    let failed = io_failure("reading a file");
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut digest = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece).map_err(&failed)? {
            0 => break,
            n => digest.update(&piece[..n]),
        }
    }
    Ok(Some(digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })))
}

/// Mount points at or below `path`, deepest first.
pub(super) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|raw| PathBuf::from(raw.replace("\\040", " ").replace("\\134", "\\")))
        .filter(|mount| mount.starts_with(path))
        .collect();
    found.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    found
}

fn image_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".img");
    path.with_file_name(name)
}

/// Whether the file system made for `path`, if one was, is mounted there.
pub(super) fn has_own_size(path: &Path) -> bool {
    !image_of(path).exists() || mounts_below(path).iter().any(|mount| mount == path)
}

/// Mounts a file system of its own over `path`: 8 ms for `mkfs`, 11 ms for
/// the mount were measured for 500 MB.
pub(super) async fn loop_mount(path: &Path, bytes: u64, uid: u32, gid: u32) -> Result<(), String> {
    let image = image_of(path);
    if !image.exists() {
        let partial = image.with_extension("img.new");
        let file = fs::File::create(&partial).map_err(|e| e.to_string())?;
        file.set_len(bytes).map_err(|e| e.to_string())?;
        let owner = format!("root_owner={uid}:{gid}");
        let target = partial.display().to_string();
        program("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", &owner, &target], None).await?;
        fs::rename(&partial, &image).map_err(|e| e.to_string())?;
    }
    let (image, target) = (image.display().to_string(), path.display().to_string());
    program("mount", &["-o", "loop,nosuid,nodev", "--", &image, &target], None).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_never_made_through_a_link() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("app")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("node_modules")).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for relative in ["app/node_modules", "node_modules", "../x"] {
            assert!(ensure_mount_point(root.path(), relative, uid, gid).is_err(), "{relative}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        fs::remove_file(root.path().join("node_modules")).unwrap();
        assert!(ensure_mount_point(root.path(), "node_modules", uid, gid).unwrap());
        assert!(!ensure_mount_point(root.path(), "node_modules", uid, gid).unwrap());
        remove_mount_point(root.path(), "node_modules");
        assert!(!root.path().join("node_modules").exists());
    }

    #[test]
    fn file_systems_that_hold_no_overlay_are_known() {
        assert_eq!(unfit_for_overlays(0x794C_7630), Some("an overlay, as in a container"));
        assert_eq!(unfit_for_overlays(0xFFFF_FFFF_FF53_4D42), Some("SMB"));
        for fit in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994] {
            assert_eq!(unfit_for_overlays(fit), None, "{fit:x}");
        }
        // What does not exist yet lies where its parent does.
        let root = tempfile::tempdir().unwrap();
        let (here, below) = (root.path(), root.path().join("a/b"));
        assert_eq!(overlay_finding(here).is_some(), overlay_finding(&below).is_some());
    }

    #[test]
    fn only_what_a_run_named_is_left_over() {
        let root = tempfile::tempdir().unwrap();
        for name in [".clone-a-0123abcd", ".clone-a-b-0123abcd", ".clone-a-", "other"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let found = leftovers(root.path(), ".clone-a-");
        assert_eq!(found, [root.path().join(".clone-a-0123abcd")]);
    }

    #[test]
    fn a_directory_that_covibes_did_not_make_is_foreign() {
        let root = tempfile::tempdir().unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mine = root.path().join("mine");
        assert_eq!(ensure_workspace(&mine, uid, gid).unwrap(), WorkspaceDir::Created);
        assert_eq!(ensure_workspace(&mine, uid, gid).unwrap(), WorkspaceDir::Ours);
        let other = root.path().join("other");
        fs::create_dir(&other).unwrap();
        assert_eq!(ensure_workspace(&other, uid, gid).unwrap(), WorkspaceDir::Foreign);
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        assert!(ensure_workspace(&link, uid, gid).is_err());
    }
}
