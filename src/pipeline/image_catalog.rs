//! The images of Covibes, named by their content.
//!
//! A tag is a digest over everything that goes into the image, its parent's
//! tag included. So an image that exists under its tag is the right one, two
//! versions of the worker never fight over a name, and nothing needs a
//! registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::config::hash;
use crate::domain::failure::{Code, Failure};
use crate::domain::findings::{Findings, Language};
use crate::domain::names::ImageRef;
use crate::pipeline::runtimes::{self, Choice};
use crate::ports::engine::{ImageBuild, label};
use crate::ports::host::Host;

/// What runs dev servers.
const SUPERVISOR: &str = "covibes-preview";

/// The Debian that set-up pulls or bootstraps.
const DEBIAN: (&str, &str) = ("debian", "bookworm");

/// The Node that agents get.
const NODE_AGENT: &str = "20.20.2";

/// The Python of that Debian, which unpinned projects get.
const PYTHON_BOOKWORM: &str = "3.11";

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageKind {
    /// What all others share.
    Base,
    /// The same on the next Debian.
    BaseTrixie,
    /// The agent.
    Agent,
    /// The sync service; also clones.
    Sync,
    /// The egress proxy.
    Egress,
    /// Node projects, with a release line of Node.
    PreviewNode(String),
    /// Python projects, with a Python version.
    PreviewPython(String),
    /// Files without a server.
    PreviewStatic,
}

impl ImageKind {
    /// The image's name, also its folder under `ops/images`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::BaseTrixie => "base-trixie",
            Self::Agent => "agent",
            Self::Sync => "sync",
            Self::Egress => "egress",
            Self::PreviewNode(_) => "preview-node",
            Self::PreviewPython(_) => "preview-python",
            Self::PreviewStatic => "preview-static",
        }
    }

    fn dockerfile(&self) -> &'static str {
        match self {
            Self::Base => include_str!("../../ops/images/base/Dockerfile"),
            Self::BaseTrixie => include_str!("../../ops/images/base-trixie/Dockerfile"),
            Self::Agent => include_str!("../../ops/images/agent/Dockerfile"),
            Self::Sync => include_str!("../../ops/images/sync/Dockerfile"),
            Self::Egress => include_str!("../../ops/images/egress/Dockerfile"),
            Self::PreviewNode(_) => include_str!("../../ops/images/preview-node/Dockerfile"),
            Self::PreviewPython(_) => include_str!("../../ops/images/preview-python/Dockerfile"),
            Self::PreviewStatic => include_str!("../../ops/images/preview-static/Dockerfile"),
        }
    }

    /// Whether it is built from Debian itself. The proxy is, because all
    /// instances of a host share it: it must be the same image for instances
    /// with different CA bundles or registries, or they would replace it in
    /// turns and cut every tunnel (docs/adr/0026). It reads neither.
    #[must_use]
    pub fn is_from_debian(&self) -> bool {
        matches!(self, Self::Base | Self::Egress)
    }

    /// The service binary that goes in.
    fn binary(&self) -> Option<&'static str> {
        match self {
            Self::Base | Self::BaseTrixie | Self::Egress => None,
            Self::Agent => Some("covibes-agent"),
            Self::Sync => Some("covibes-sync"),
            Self::PreviewNode(_) | Self::PreviewPython(_) | Self::PreviewStatic => Some(SUPERVISOR),
        }
    }
}

/// What of the host goes into images.
#[derive(Debug, Clone, Default)]
pub struct ImageSources {
    /// The host's CA bundle.
    pub ca_bundle: Vec<u8>,
    /// The registry lines of the host's npm configuration.
    pub npmrc: Vec<u8>,
    /// The index lines of the host's pip configuration.
    pub pip_conf: Vec<u8>,
    /// Where the service binaries lie.
    pub binary_dir: PathBuf,
}

/// All images with their tags.
#[derive(Debug)]
pub struct ImageCatalog {
    sources: ImageSources,
    /// Binary name to digest. The bytes are read again for a build only: a
    /// worker at rest should not hold them.
    binaries: BTreeMap<&'static str, String>,
}

impl ImageCatalog {
    /// Reads and digests what goes into the images.
    ///
    /// # Errors
    /// A service binary is missing beside the worker's own.
    pub async fn load(host: &dyn Host, sources: ImageSources) -> Result<Self, Failure> {
        let mut binaries = BTreeMap::new();
        for name in ["covibes-agent", "covibes-sync", "covibes-preview"] {
            let path = sources.binary_dir.join(name);
            let Some(digest) = host.digest_file(&path).await? else {
                return Err(Failure::new(
                    Code::ImageMissing,
                    format!("{name} is not beside the covibes binary; build all binaries"),
                ));
            };
            binaries.insert(name, digest);
        }
        Ok(Self { sources, binaries })
    }

    /// The Debian that everything is built from.
    #[must_use]
    pub fn debian() -> ImageRef {
        ImageRef::local(DEBIAN.0, DEBIAN.1).expect("the literals are plain")
    }

    /// Every image that this version may run.
    #[must_use]
    pub fn current(&self) -> BTreeSet<ImageRef> {
        let plain = [
            ImageKind::Base,
            ImageKind::BaseTrixie,
            ImageKind::Agent,
            ImageKind::Sync,
            ImageKind::Egress,
            ImageKind::PreviewStatic,
        ];
        let node = runtimes::NODE.lines().iter().map(|l| ImageKind::PreviewNode((*l).to_owned()));
        let python = runtimes::PYTHON.lines().iter();
        let python = python.map(|line| ImageKind::PreviewPython((*line).to_owned()));
        plain.into_iter().chain(node).chain(python).map(|kind| self.image(&kind)).collect()
    }

    /// The image of a kind.
    #[must_use]
    pub fn image(&self, kind: &ImageKind) -> ImageRef {
        let mut digest = Sha256::new();
        for (name, mode, content) in self.small_files(kind) {
            digest.update(format!("{name}\0{mode}\0{}\0", content.len()));
            digest.update(content);
        }
        if let Some(binary) = kind.binary() {
            digest.update(&self.binaries[binary]);
        }
        for (name, value) in self.args(kind) {
            digest.update(format!("{name}={value}\0"));
        }
        let tag = hash::digest(&digest.finalize());
        ImageRef::local(kind.name(), &tag).expect("a digest is plain")
    }

    /// Which image runs a project.
    ///
    /// # Errors
    /// `build.unsupported` for languages without an image yet, `runtime.unavailable` for a
    /// version that none of them has.
    pub fn runtime(&self, findings: &Findings) -> Result<ImageKind, Failure> {
        match findings.language {
            Language::Node => {
                let Choice { line, .. } = runtimes::NODE.choose(findings.runtime.as_ref())?;
                Ok(ImageKind::PreviewNode(line.to_owned()))
            }
            Language::Python => {
                let Choice { line, .. } = runtimes::PYTHON.choose(findings.runtime.as_ref())?;
                Ok(ImageKind::PreviewPython(line.to_owned()))
            }
            Language::Static => Ok(ImageKind::PreviewStatic),
            Language::None => Err(Failure::new(
                Code::BuildUnsupported,
                "nothing says in which runtime the project runs",
            )),
            other => Err(Failure::new(
                Code::BuildUnsupported,
                format!("there is no runtime image for {} yet", other.as_str()),
            )),
        }
    }

    fn small_files(&self, kind: &ImageKind) -> Vec<(String, u32, Vec<u8>)> {
        let file = |name: &str, content: &[u8]| (name.to_owned(), 0o644, content.to_vec());
        let mut files = vec![file("Dockerfile", kind.dockerfile().as_bytes())];
        if matches!(kind, ImageKind::Egress | ImageKind::BaseTrixie) {
            return files;
        }
        files.extend([
            file("ca-bundle.crt", &self.sources.ca_bundle),
            file("npmrc", &self.sources.npmrc),
            file("pip.conf", &self.sources.pip_conf),
        ]);
        if *kind == ImageKind::Base {
            files.push(file("gitconfig", include_bytes!("../../ops/images/base/gitconfig")));
        }
        files
    }

    /// The image that a kind is built from.
    #[must_use]
    pub fn parent(&self, kind: &ImageKind) -> ImageRef {
        match self.made_parent(kind) {
            None => Self::debian(),
            Some(parent) => self.image(&parent),
        }
    }

    /// The same, if it is one of these.
    #[must_use]
    pub fn made_parent(&self, kind: &ImageKind) -> Option<ImageKind> {
        match kind {
            ImageKind::PreviewPython(line) if line != PYTHON_BOOKWORM => {
                Some(ImageKind::BaseTrixie)
            }
            kind => (!kind.is_from_debian()).then_some(ImageKind::Base),
        }
    }

    fn args(&self, kind: &ImageKind) -> BTreeMap<String, String> {
        let base = self.parent(kind);
        let mut args = BTreeMap::from([
            ("BASE_IMAGE".to_owned(), base.to_string()),
            ("VERSION".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        match kind {
            ImageKind::PreviewNode(line) => {
                args.insert("NODE_VERSION".to_owned(), node_version(line).to_owned());
            }
            ImageKind::Agent => {
                args.insert("NODE_VERSION".to_owned(), NODE_AGENT.to_owned());
            }
            ImageKind::PreviewPython(line) => {
                args.insert("PYTHON_VERSION".to_owned(), line.clone());
            }
            ImageKind::Base
            | ImageKind::BaseTrixie
            | ImageKind::Sync
            | ImageKind::Egress
            | ImageKind::PreviewStatic => {}
        }
        args
    }

    /// The digest of the supervisor that goes into previews' images.
    #[must_use]
    pub fn supervisor_digest(&self) -> &str {
        &self.binaries[SUPERVISOR]
    }

    /// The supervisor as a file of a build.
    ///
    /// # Errors
    /// It can no longer be read, or is another one than at the start.
    pub async fn supervisor(&self, host: &dyn Host) -> Result<(String, u32, Vec<u8>), Failure> {
        self.binary(host, SUPERVISOR).await
    }

    async fn binary(
        &self,
        host: &dyn Host,
        binary: &str,
    ) -> Result<(String, u32, Vec<u8>), Failure> {
        let path = self.sources.binary_dir.join(binary);
        let digest = host.digest_file(&path).await?;
        if digest.as_ref() != self.binaries.get(binary) {
            return Err(Failure::new(
                Code::ImageMissing,
                format!("{binary} changed since the worker started; restart the worker"),
            ));
        }
        let bytes = host.read_file(&path).await?.unwrap_or_default();
        Ok((binary.to_owned(), 0o755, bytes))
    }

    /// The request that builds a kind.
    ///
    /// # Errors
    /// A binary can no longer be read, or is another one than at the start.
    pub async fn build(&self, host: &dyn Host, kind: &ImageKind) -> Result<ImageBuild, Failure> {
        let mut files = self.small_files(kind);
        if let Some(binary) = kind.binary() {
            files.push(self.binary(host, binary).await?);
        }
        Ok(ImageBuild {
            image: self.image(kind),
            files,
            args: self.args(kind),
            labels: BTreeMap::from([(label::INSTANCE.to_owned(), "host".to_owned())]),
            held: None,
        })
    }
}

/// The patch of a release line that is built: the same on every host, and the builder's cache
/// keeps it.
fn node_version(line: &str) -> &str {
    match line {
        "20" => NODE_AGENT,
        "22" => "22.23.3",
        "24" => "24.21.0",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::findings::{Runtime, RuntimeName};

    fn catalog(ca_bundle: &[u8]) -> ImageCatalog {
        let sources = ImageSources { ca_bundle: ca_bundle.to_vec(), ..Default::default() };
        let names = ["covibes-agent", "covibes-sync", "covibes-preview"];
        ImageCatalog { sources, binaries: names.map(|name| (name, String::new())).into() }
    }

    #[test]
    fn every_line_on_offer_has_an_image_of_its_own() {
        let catalog = catalog(b"");
        let image = |language, name, version: &str| {
            let mut findings = Findings::blank(".");
            findings.language = language;
            findings.runtime = Some(Runtime { name, version: version.to_owned(), range: None });
            let kind = catalog.runtime(&findings).unwrap();
            (catalog.image(&kind), catalog.made_parent(&kind), catalog.args(&kind))
        };
        let node = |version| image(Language::Node, RuntimeName::Node, version);
        let python = |version| image(Language::Python, RuntimeName::Python, version);
        assert_eq!(node("22.12.0"), node("22"));
        assert_ne!(node("22").0, node("24").0);
        assert_eq!(node("24").2["NODE_VERSION"].split('.').next(), Some("24"));
        assert_eq!(python("3.11").1, Some(ImageKind::Base));
        assert_eq!(python("3.13").1, Some(ImageKind::BaseTrixie));
        assert_eq!(python("3.13").2["PYTHON_VERSION"], "3.13");
    }

    #[test]
    fn another_ca_bundle_makes_other_images_but_the_same_proxy() {
        let (one, other) = (catalog(b"one"), catalog(b"other"));
        for kind in [ImageKind::Base, ImageKind::Agent, ImageKind::Sync] {
            assert_ne!(one.image(&kind), other.image(&kind), "{}", kind.name());
        }
        assert_eq!(one.image(&ImageKind::Egress), other.image(&ImageKind::Egress));
    }
}
