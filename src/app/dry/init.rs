//! `covibes init`: writes a project file from what was detected.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

use super::explained;
use crate::app::wiring::open_tree;
use crate::config::project;
use crate::domain::failure::Code;
use crate::domain::findings::PROJECT_FILE;
use crate::pipeline::steps::detect;

/// Writes the project file of a directory; one that is there only if `force` says so.
///
/// # Errors
/// There is a project file, the directory cannot be read, or the file cannot be written.
pub fn init(directory: &Path, force: bool) -> anyhow::Result<()> {
    let tree = open_tree(directory).map_err(|failure| explained(&failure))?;
    // What an old file says is not what was detected.
    let found = match detect::findings(tree.as_ref(), None) {
        Ok(findings) => Some(findings),
        Err(failure) if failure.code == Code::DetectUnknownProject => None,
        Err(failure) => return Err(explained(&failure)),
    };
    let text = project::write(found.as_ref());
    let path = directory.join(PROJECT_FILE);
    let target = if force { directory.join(format!("{PROJECT_FILE}.new")) } else { path.clone() };
    let mut options = OpenOptions::new();
    // Never through a link that the repository holds.
    options.write(true).create_new(true).mode(0o644);
    let mut file = match options.open(&target) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; `--force` writes it anew", target.display())
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", target.display()));
        }
    };
    file.write_all(text.as_bytes()).context("cannot write the project file")?;
    if force {
        std::fs::rename(&target, &path).context("cannot replace the project file")?;
    }
    match &found {
        Some(findings) => eprintln!(
            "wrote {}: {} as it was detected; change what is wrong and commit it",
            path.display(),
            super::explain::name_of(findings)
        ),
        None => eprintln!(
            "wrote {}: nothing was detected, so set `command` and `port` in it",
            path.display()
        ),
    }
    Ok(())
}
