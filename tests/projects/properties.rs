//! What holds for every project: detection does not depend on the order of directories nor on
//! files that say nothing, and no tree makes it panic.

use std::collections::BTreeMap;
use std::path::Path;

use covibes::detect::detect;
use covibes::detect::tree::{Entry, Kind, MemoryTree, Tree, TreeError};
use covibes::domain::findings::Findings;
use proptest::prelude::*;

use crate::{Project, projects};

/// Files that say nothing about how a project is run.
const UNRELATED: [(&str, &str); 9] = [
    ("LICENSE", "do what you like"),
    ("CHANGELOG.md", "## 1.0.0\n- port: 9999\n"),
    (".github/workflows/ci.yml", "on: push\njobs: {}\n"),
    (".git/config", "[core]\n"),
    (".editorconfig", "root = true\n"),
    ("assets/logo.svg", "<svg/>"),
    ("node_modules/next/package.json", r#"{"name":"next","scripts":{"dev":"next dev"}}"#),
    ("notes/meeting.txt", "app.listen(9999)"),
    ("zzz.bin", "\0\0\0"),
];

/// A tree whose directories come in another order.
struct Shuffled<'tree> {
    tree: &'tree MemoryTree,
    seed: u64,
}

impl Tree for Shuffled<'_> {
    fn read(&self, path: &str) -> Result<Option<bytes::Bytes>, TreeError> {
        self.tree.read(path)
    }

    fn head(&self, path: &str, bytes_max: usize) -> Result<Option<bytes::Bytes>, TreeError> {
        self.tree.head(path, bytes_max)
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, TreeError> {
        let mut entries = self.tree.list(directory)?;
        // Names in the order of a number that the seed makes of them.
        entries.sort_by_key(|entry| {
            entry.name.bytes().fold(self.seed, |number, byte| {
                (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        });
        Ok(entries)
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>, TreeError> {
        self.tree.kind(path)
    }
}

fn files(root: &Path, directory: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// Every project that is nothing but plain files.
fn plain() -> Vec<(Project, BTreeMap<String, Vec<u8>>)> {
    let plain =
        projects().into_iter().filter(|project| !project.directory.join("setup.json").exists());
    plain
        .map(|project| {
            let root = project.directory.join("files");
            let mut found = BTreeMap::new();
            files(&root, &root, &mut found);
            (project, found)
        })
        .collect()
}

/// What is said, without the words around it.
fn said(findings: Result<Findings, covibes::detect::DetectError>) -> String {
    match findings {
        Ok(mut findings) => {
            findings.warnings.clear();
            format!("{findings:?}")
        }
        Err(error) => error.code().to_owned(),
    }
}

#[test]
fn the_order_of_directories_changes_nothing() {
    for (project, files) in plain() {
        let tree = MemoryTree::new(files);
        let once = detect(&tree, None).map(|findings| format!("{findings:?}"));
        for seed in 1..6 {
            let shuffled = Shuffled { tree: &tree, seed };
            let again = detect(&shuffled, None).map(|findings| format!("{findings:?}"));
            assert_eq!(format!("{once:?}"), format!("{again:?}"), "{} {seed}", project.name);
        }
    }
}

#[test]
fn files_that_say_nothing_change_nothing() {
    for (project, mut files) in plain() {
        let before = said(detect(&MemoryTree::new(files.clone()), None));
        for (path, text) in UNRELATED {
            files.entry(path.to_owned()).or_insert_with(|| text.as_bytes().to_vec());
        }
        let after = said(detect(&MemoryTree::new(files), None));
        assert_eq!(before, after, "{}", project.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Files of all projects, cut, mixed and put where they do not belong.
    #[test]
    fn no_tree_makes_it_panic(
        picks in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_usize..400, any::<u8>(), 0_u8..4),
            1..12,
        ),
    ) {
        static POOL: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
        let pool = POOL.get_or_init(|| plain().into_iter().flat_map(|(_, files)| files).collect());
        let tree: BTreeMap<String, Vec<u8>> = picks
            .iter()
            .map(|(name, text, cut, noise, place)| {
                let (path, _) = &pool[name.index(pool.len())];
                let (_, bytes) = &pool[text.index(pool.len())];
                let mut bytes = bytes.clone();
                match noise % 4 {
                    0 => bytes.truncate(*cut),
                    1 if !bytes.is_empty() => {
                        let at = cut % bytes.len();
                        bytes[at] = *noise;
                    }
                    2 => bytes.extend_from_within(..bytes.len().min(*cut)),
                    _ => {}
                }
                let path = match place {
                    0 => path.clone(),
                    1 => path.rsplit('/').next().unwrap_or_default().to_owned(),
                    2 => format!("apps/{path}"),
                    _ => format!("{path}/{path}"),
                };
                (path, bytes)
            })
            .collect();
        let tree = MemoryTree::new(tree);
        let once = said(detect(&tree, None));
        prop_assert_eq!(once, said(detect(&tree, None)));
    }
}
