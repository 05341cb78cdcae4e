//! What a program needs to run: itself, its interpreter, its libraries, theirs, and the links on the way to each.
//!
//! Libraries are looked for where the loader will look inside, which has no cache there (there is no `/etc`): the
//! object's `RPATH` or `RUNPATH`, then the loader's own directories (ld.so(8)). What is not found is left out; the loader
//! says so on stderr. Every file is read once and hashed; what was learnt is kept until the file changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use goblin::elf::Elf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Files and links that a view shows, at most.
const MAX_ENTRIES: usize = 20_000;
/// Bytes of one file, at most.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Links followed on the way to one file, as the kernel does.
const MAX_LINKS: usize = 40;
/// Interpreters of interpreters, as the kernel does; and what it reads of a first line.
const MAX_INTERPRETERS: usize = 5;
const FIRST_LINE_BYTES: usize = 256;

#[cfg(target_arch = "x86_64")]
const TRIPLET: &str = "x86_64-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TRIPLET: &str = "aarch64-linux-gnu";

/// Where nothing can be shown: the sandbox has mounts of its own there.
const TAKEN: [&str; 4] = ["/work", "/tmp", "/dev", "/proc"];

/// What a step sees of the host's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    /// Symbolic links and where they lead.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Files, and whether each may be executed.
    pub files: BTreeMap<PathBuf, bool>,
    /// Directories that are shown whole; nothing in them may be executed unless it stands among the files.
    pub directories: BTreeSet<PathBuf>,
}

impl Shown {
    /// Whether a directory that is shown whole holds the path.
    pub(super) fn covers(&self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .any(|above| self.directories.contains(above))
    }
}

/// What was learnt of files, by path.
#[derive(Debug, Default)]
pub(super) struct Closures {
    known: Mutex<HashMap<PathBuf, (Stamp, Arc<Facts>)>>,
}

/// A file's content may have changed when one of these has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// What a file's content says.
#[derive(Debug)]
struct Facts {
    digest: [u8; 32],
    /// The program that the kernel starts in its place: the loader, or what stands behind `#!`.
    interpreter: Option<PathBuf>,
    object: Option<Object>,
}

/// The dynamic part of an ELF file.
#[derive(Debug)]
struct Object {
    /// Class and machine: a library of another is no answer.
    kind: (u8, u16),
    needed: Vec<String>,
    rpaths: Vec<String>,
    runpaths: Vec<String>,
}

impl Closures {
    /// What these programs and directories need, and the digest of all of it, lower-case hex.
    ///
    /// The digest is the root of a Merkle tree (RFC 9162, section 2.1) over SHA-256, whose leaves stand in the order of
    /// their paths: `file <path>\0<digest>`, `link <path>\0<target>`; digests in lower-case hex.
    ///
    /// # Errors
    /// A path can't be shown, or a file can't be read. A path that is not there is left out.
    pub(super) fn resolve(&self, granted: &[PathBuf]) -> io::Result<(Shown, String)> {
        let mut search = Search {
            closures: self,
            shown: Shown {
                links: BTreeMap::new(),
                files: BTreeMap::new(),
                directories: BTreeSet::new(),
            },
            leaves: BTreeMap::new(),
            objects: VecDeque::new(),
        };
        for path in granted {
            search.grant(path)?;
        }
        while let Some((path, facts)) = search.objects.pop_front() {
            search.libraries(&path, &facts)?;
        }
        let Search {
            mut shown, leaves, ..
        } = search;
        let nested: Vec<PathBuf> = shown
            .directories
            .iter()
            .filter(|path| shown.covers(path))
            .cloned()
            .collect();
        nested.iter().for_each(|path| {
            shown.directories.remove(path);
        });
        let leaves: Vec<[u8; 32]> = leaves.values().map(|leaf| hash(&[&[0], leaf])).collect();
        Ok((shown, hex::encode(root(&leaves))))
    }

    fn facts(&self, path: &Path, found: &Metadata) -> io::Result<Arc<Facts>> {
        let stamp = Stamp::of(found);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, facts)) = known().get(path)
            && *then == stamp
        {
            return Ok(Arc::clone(facts));
        }
        if found.size() > MAX_FILE_BYTES {
            let problem = format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display());
            return Err(io::Error::other(problem));
        }
        let content = fs::read(path).map_err(|error| named(path, &error))?;
        let facts = Arc::new(learn(&content));
        known().insert(path.to_owned(), (stamp, Arc::clone(&facts)));
        Ok(facts)
    }
}

fn learn(content: &[u8]) -> Facts {
    let mut facts = Facts {
        digest: Sha256::digest(content).into(),
        interpreter: None,
        object: None,
    };
    if let Some(line) = content.strip_prefix(b"#!") {
        let line = &line[..line.len().min(FIRST_LINE_BYTES)];
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| byte.is_ascii_whitespace());
        let program = words.find(|word| !word.is_empty());
        facts.interpreter =
            program.map(|word| PathBuf::from(String::from_utf8_lossy(word).into_owned()));
    } else if content.starts_with(goblin::elf::header::ELFMAG)
        && let Ok(elf) = Elf::parse(content)
    {
        let texts = |list: &[&str]| -> Vec<String> {
            let parts = list.iter().flat_map(|text| text.split(':'));
            parts
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect()
        };
        facts.interpreter = elf.interpreter.map(PathBuf::from);
        facts.object = Some(Object {
            kind: (
                elf.header.e_ident[goblin::elf::header::EI_CLASS],
                elf.header.e_machine,
            ),
            needed: elf.libraries.iter().map(|&name| name.to_owned()).collect(),
            rpaths: texts(&elf.rpaths),
            runpaths: texts(&elf.runpaths),
        });
    }
    facts
}

/// One resolution.
struct Search<'a> {
    closures: &'a Closures,
    shown: Shown,
    leaves: BTreeMap<PathBuf, Vec<u8>>,
    /// Objects whose libraries are still to be found.
    objects: VecDeque<(PathBuf, Arc<Facts>)>,
}

impl Search<'_> {
    fn grant(&mut self, path: &Path) -> io::Result<()> {
        if !path.is_absolute() || TAKEN.iter().any(|taken| path.starts_with(taken)) {
            let problem = format!("{} can't be shown", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let mut program = path.to_owned();
        for _ in 0..MAX_INTERPRETERS {
            let Some((place, found)) = self.walk(&program)? else {
                return Ok(());
            };
            if found.is_dir() {
                return self.whole(&place);
            }
            let facts = self.file(&place, &found, true)?;
            match &facts.interpreter {
                Some(interpreter) => program.clone_from(interpreter),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Shows the links on the way to a file or directory; where it really is, unless there is none.
    fn walk(&mut self, path: &Path) -> io::Result<Option<(PathBuf, Metadata)>> {
        let parts = |path: &Path| -> Vec<PathBuf> {
            let parts = path
                .components()
                .rev()
                .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
            parts.map(|part| PathBuf::from(part.as_os_str())).collect()
        };
        let (mut at, mut left, mut links) = (PathBuf::from("/"), parts(path), Vec::new());
        let mut last = None;
        while let Some(part) = left.pop() {
            if part.as_os_str() == ".." {
                at.pop();
                continue;
            }
            let next = at.join(part);
            let Ok(found) = fs::symlink_metadata(&next) else {
                return Ok(None);
            };
            if found.is_symlink() {
                if links.len() == MAX_LINKS {
                    return Ok(None);
                }
                let target = fs::read_link(&next).map_err(|error| named(&next, &error))?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                left.extend(parts(&target));
                links.push((next, target));
                continue;
            }
            at = next;
            last = Some(found);
        }
        let Some(found) = last.filter(|found| found.is_dir() || found.is_file()) else {
            return Ok(None);
        };
        for (link, target) in links {
            self.leaf(&link, "link", target.as_os_str().as_bytes())?;
            self.shown.links.insert(link, target);
        }
        Ok(Some((at, found)))
    }

    fn file(&mut self, place: &Path, found: &Metadata, execute: bool) -> io::Result<Arc<Facts>> {
        let facts = self.closures.facts(place, found)?;
        let is_new = !self.leaves.contains_key(place);
        self.leaf(place, "file", hex::encode(facts.digest).as_bytes())?;
        *self.shown.files.entry(place.to_owned()).or_default() |= execute;
        if is_new && facts.object.is_some() {
            self.objects
                .push_back((place.to_owned(), Arc::clone(&facts)));
        }
        Ok(facts)
    }

    /// Shows a directory with all below it, and what the objects in it need.
    fn whole(&mut self, directory: &Path) -> io::Result<()> {
        self.shown.directories.insert(directory.to_owned());
        let mut left = vec![directory.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).map_err(|error| named(&directory, &error))? {
                let path = entry?.path();
                let found = fs::symlink_metadata(&path).map_err(|error| named(&path, &error))?;
                if found.is_dir() {
                    left.push(path);
                } else if found.is_symlink() {
                    let target = fs::read_link(&path).map_err(|error| named(&path, &error))?;
                    self.leaf(&path, "link", target.as_os_str().as_bytes())?;
                } else if found.is_file() {
                    let facts = self.closures.facts(&path, &found)?;
                    self.leaf(&path, "file", hex::encode(facts.digest).as_bytes())?;
                    if facts.object.is_some() {
                        self.objects.push_back((path, facts));
                    }
                }
            }
        }
        Ok(())
    }

    fn libraries(&mut self, path: &Path, facts: &Facts) -> io::Result<()> {
        let Some(object) = &facts.object else {
            return Ok(());
        };
        for name in &object.needed {
            for candidate in candidates(path, object, name) {
                let Ok(found) = fs::metadata(&candidate) else {
                    continue;
                };
                if !found.is_file() {
                    continue;
                }
                let real = fs::canonicalize(&candidate)?;
                let kind = self
                    .closures
                    .facts(&real, &found)?
                    .object
                    .as_ref()
                    .map(|found| found.kind);
                if kind != Some(object.kind) {
                    continue;
                }
                if let Some((place, found)) = self.walk(&candidate)? {
                    self.file(&place, &found, false)?;
                }
                break;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, path: &Path, kind: &str, value: &[u8]) -> io::Result<()> {
        let leaf = [
            kind.as_bytes(),
            b" ",
            path.as_os_str().as_bytes(),
            b"\0",
            value,
        ]
        .concat();
        self.leaves.insert(path.to_owned(), leaf);
        if self.leaves.len() > MAX_ENTRIES {
            let problem = format!("a view shows at most {MAX_ENTRIES} files and links");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        Ok(())
    }
}

/// Where the loader looks for a library of an object, in order.
fn candidates(object_path: &Path, object: &Object, name: &str) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![PathBuf::from(name)];
    }
    let origin = object_path.parent().unwrap_or(Path::new("/"));
    // RPATH counts only where there is no RUNPATH.
    let own = if object.runpaths.is_empty() {
        &object.rpaths
    } else {
        &object.runpaths
    };
    let own = own.iter().map(|path| {
        let origin = origin.to_string_lossy();
        let path = path
            .replace("${ORIGIN}", &origin)
            .replace("$ORIGIN", &origin);
        PathBuf::from(path)
    });
    let system = [
        format!("/lib/{TRIPLET}"),
        format!("/usr/lib/{TRIPLET}"),
        "/lib64".to_owned(),
        "/usr/lib64".to_owned(),
        "/lib".to_owned(),
        "/usr/lib".to_owned(),
        "/usr/local/lib".to_owned(),
    ];
    own.filter(|path| path.is_absolute())
        .chain(system.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .collect()
}

/// Root of a Merkle tree over the leaves' hashes.
fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => hash(&[]),
        [leaf] => *leaf,
        _ => {
            let left = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(left);
            hash(&[&[1], &root(left), &root(right)])
        }
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(granted: &[&str]) -> (Shown, String) {
        let granted: Vec<PathBuf> = granted.iter().map(PathBuf::from).collect();
        Closures::default().resolve(&granted).unwrap()
    }

    #[test]
    fn a_program_comes_with_its_loader_and_libraries_and_nothing_else() {
        let (shown, digest) = resolve(&["/usr/bin/true"]);
        let names: Vec<&str> = shown
            .files
            .keys()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert!(names.contains(&"true") && names.len() < 8, "{names:?}");
        assert!(
            names.iter().any(|name| name.starts_with("libc.")),
            "{names:?}"
        );
        let executable: Vec<_> = shown
            .files
            .iter()
            .filter(|(_, execute)| **execute)
            .collect();
        assert_eq!(executable.len(), 2, "{executable:?}");
        assert!(shown.directories.is_empty());
        assert_eq!(resolve(&["/usr/bin/true"]).1, digest);
        assert_ne!(resolve(&["/usr/bin/false"]).1, digest);
    }

    #[test]
    fn a_script_comes_with_its_interpreter() {
        let (shown, _) = resolve(&["/usr/bin/ldd"]);
        let first = fs::read_to_string("/usr/bin/ldd").unwrap();
        let shell = first.lines().next().unwrap().trim_start_matches("#!");
        let shell = fs::canonicalize(shell.trim()).unwrap();
        assert_eq!(shown.files.get(&shell), Some(&true), "{shown:?}");
        let spaced = learn(b"#! /bin/sh -e\ntrue\n").interpreter;
        assert_eq!(spaced, Some(PathBuf::from("/bin/sh")));
    }

    #[test]
    fn links_on_the_way_are_shown_as_links() {
        let (shown, _) = resolve(&["/usr/bin/sh"]);
        for (link, target) in &shown.links {
            assert_eq!(&fs::read_link(link).unwrap(), target);
        }
        for path in shown.files.keys() {
            assert_eq!(&fs::canonicalize(path).unwrap(), path);
        }
    }

    #[test]
    fn what_changes_is_read_again() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        let closures = Closures::default();
        let digest = || {
            let facts = closures.facts(&file, &fs::metadata(&file).unwrap());
            facts.unwrap().digest
        };
        fs::write(&file, "one").unwrap();
        let one = digest();
        assert_eq!(one, digest());
        fs::write(&file, "another").unwrap();
        assert_ne!(one, digest());
    }

    #[test]
    fn the_sandbox_s_own_places_can_t_be_shown() {
        for path in ["/proc", "/dev/null", "/tmp/x", "/work", "usr/bin/true"] {
            let granted = [PathBuf::from(path)];
            assert!(Closures::default().resolve(&granted).is_err(), "{path}");
        }
        let (shown, digest) = resolve(&["/usr/bin/no-such-program"]);
        assert!(shown.files.is_empty());
        assert_eq!(digest, hex::encode(Sha256::digest("")));
    }

    #[test]
    fn a_directory_brings_what_its_modules_need() {
        let place = tempfile::tempdir().unwrap();
        fs::copy("/usr/bin/true", place.path().join("module.so")).unwrap();
        let closures = Closures::default();
        let mut search = Search {
            closures: &closures,
            shown: resolve(&[]).0,
            leaves: BTreeMap::new(),
            objects: VecDeque::new(),
        };
        search.whole(place.path()).unwrap();
        let (path, facts) = search.objects.pop_front().unwrap();
        search.libraries(&path, &facts).unwrap();
        let found = search.shown.files.iter().next().unwrap();
        assert!(found.0.to_str().unwrap().contains("libc"), "{found:?}");
        assert!(!found.1);
    }

    #[test]
    fn every_leaf_counts() {
        let leaves: Vec<[u8; 32]> = (0..7).map(|n| [n; 32]).collect();
        let whole = root(&leaves);
        for index in 0..7 {
            let mut changed = leaves.clone();
            changed[index][0] ^= 1;
            assert_ne!(root(&changed), whole);
        }
    }
}
