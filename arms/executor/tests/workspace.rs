//! The laws of workspaces: archives, merges, file actions; and archives that nobody of good will has made.

use std::io::{self, Read};

use bytes::Bytes;
use octollm_executor::action::{Action, FileChange, Mode};
use octollm_executor::workspace::{
    ArchiveError, Caps, ChangeError, Entry, Excess, Globs, Kind, Tree, WorkspacePath,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

const SMALL: Caps = Caps {
    bytes: 64 << 10,
    entries: 64,
};

fn path(text: &str) -> WorkspacePath {
    text.to_owned().try_into().unwrap()
}

fn tree(entries: Value) -> Tree {
    let entries = Vec::<Entry>::deserialize(entries).unwrap();
    Tree::default().with_entries(&entries, 1000).unwrap()
}

fn change(action: Value) -> FileChange {
    let mut action = action;
    action["kind"] = json!("file");
    match Action::parse(&action).unwrap() {
        Action::File(change) => change,
        other => panic!("{other:?}"),
    }
}

/// Paths of few names, so that they meet; some long, some that sort between a directory and what it holds.
fn paths() -> impl Strategy<Value = WorkspacePath> {
    let name = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "a-", "a.b", "ü"]).prop_map(str::to_owned),
        1 => "[a-z]{90,130}",
        1 => "[^/\\p{Cc}]{1,8}",
    ];
    prop::collection::vec(name, 1..4).prop_filter_map("a path", |names| {
        WorkspacePath::try_from(names.join("/")).ok()
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let modes = (0..0o1000_u32).prop_map(Mode::masked);
    let contents = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..4),
        1 => prop::collection::vec(any::<u8>(), 500..1100),
    ];
    let kinds = prop_oneof![
        3 => (modes.clone(), contents).prop_map(|(mode, content)| Kind::File { mode, content: content.into() }),
        2 => modes.prop_map(|mode| Kind::Directory { mode }),
        1 => "[a-c]{1,3}(/[a-c]{1,150})?".prop_map(|target| Kind::Symlink { target }),
    ];
    (paths(), 0..253_402_300_800_u64, kinds).prop_map(|(path, mtime, kind)| Entry {
        path,
        mtime: Some(mtime),
        kind,
    })
}

/// Trees: entries one after the other, without those that do not fit the ones before.
fn trees() -> impl Strategy<Value = Tree> {
    prop::collection::vec(entries(), 0..12).prop_map(|entries| grown(&Tree::default(), &entries))
}

fn grown(tree: &Tree, entries: &[Entry]) -> Tree {
    entries.iter().fold(tree.clone(), |tree, entry| {
        tree.with_entries(std::slice::from_ref(entry), 7)
            .unwrap_or(tree)
    })
}

/// A tree that came of this one: some nodes taken away, some put in.
fn changed(base: &Tree, removed: &[prop::sample::Index], entries: &[Entry]) -> Tree {
    let mut tree = base.clone();
    for index in removed {
        if !tree.is_empty() {
            let (path, _) = tree.iter().nth(index.index(tree.len())).unwrap();
            let delete = change(json!({"op": "delete", "path": path.as_str()}));
            tree = tree.apply(&delete, 9, &Caps::default()).unwrap_or(tree);
        }
    }
    grown(&tree, entries)
}

prop_compose! {
    fn histories()(base in trees())(
        one in (prop::collection::vec(any::<prop::sample::Index>(), 0..3), prop::collection::vec(entries(), 0..3)),
        other in (prop::collection::vec(any::<prop::sample::Index>(), 0..3), prop::collection::vec(entries(), 0..3)),
        base in Just(base),
    ) -> (Tree, Tree, Tree) {
        let (one, other) = (changed(&base, &one.0, &one.1), changed(&base, &other.0, &other.1));
        (base, one, other)
    }
}

fn holds_its_rules(tree: &Tree, caps: &Caps) {
    assert!(tree.len() <= caps.entries && tree.space() <= caps.bytes);
    for (path, node) in tree.iter() {
        if let Some(parent) = path.parent() {
            let parent = &tree.get(&parent).expect("a parent").kind;
            assert!(matches!(parent, Kind::Directory { .. }), "{path}");
        }
        if let Kind::Symlink { target } = &node.kind {
            assert_eq!(path.link_target(target).as_ref(), Some(target));
        }
    }
}

/// Without times, which are never a conflict.
fn timeless(tree: &Tree) -> Vec<(WorkspacePath, Kind)> {
    let nodes = tree.iter();
    nodes
        .map(|(path, node)| (path.clone(), node.kind.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_archive_is_the_tree(tree in trees()) {
        let archive = tree.to_tar();
        let (back, left_out) = Tree::from_tar(&*archive, &Caps::default()).unwrap();
        prop_assert_eq!(&back, &tree);
        prop_assert_eq!(left_out.count, 0);
        prop_assert_eq!(back.to_tar(), archive);
        prop_assert_eq!(back.digest(), tree.digest());
        let snapshot = tree.to_snapshot();
        let back = Tree::from_snapshot(&*snapshot, Some(&tree.digest()), &Caps::default());
        prop_assert_eq!(back.unwrap(), tree);
    }

    #[test]
    fn trees_that_differ_have_other_digests(one in trees(), other in trees()) {
        prop_assert_eq!(one == other, one.digest() == other.digest());
    }

    #[test]
    fn a_merge_is_what_both_have_done((base, one, other) in histories()) {
        prop_assert_eq!(&Tree::merge(&base, &base, &one).unwrap(), &one);
        prop_assert_eq!(timeless(&Tree::merge(&base, &one, &base).unwrap()), timeless(&one));
        prop_assert_eq!(timeless(&Tree::merge(&base, &one, &one).unwrap()), timeless(&one));
        let merged = Tree::merge(&base, &one, &other);
        let mirrored = Tree::merge(&base, &other, &one);
        prop_assert_eq!(merged.is_ok(), mirrored.is_ok());
        let Ok(merged) = merged else { return Ok(()) };
        prop_assert_eq!(timeless(&merged), timeless(&mirrored.unwrap()));
        holds_its_rules(&merged, &Caps::default());
        let kind = |tree: &Tree, path| tree.get(path).map(|node| node.kind.clone());
        for (path, _) in base.iter().chain(one.iter()).chain(other.iter()) {
            let (was, left, right) = (kind(&base, path), kind(&one, path), kind(&other, path));
            let expected = if left == was { right } else { left };
            prop_assert_eq!(kind(&merged, path), expected, "{}", path);
        }
    }

    #[test]
    fn no_bytes_break_the_reader(mut archive in trees().prop_map(|tree| tree.to_tar().to_vec()),
                                 hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
                                 mends in any::<bool>(), cut in any::<prop::sample::Index>()) {
        for (at, byte) in hits {
            let at = at.index(archive.len());
            archive[at] = byte;
            if mends {
                mend_checksum(&mut archive, at / 512 * 512);
            }
        }
        archive.truncate(cut.index(archive.len() * 4).max(512));
        if let Ok((tree, _)) = Tree::from_tar(&*archive, &SMALL) {
            holds_its_rules(&tree, &SMALL);
            prop_assert_eq!(Tree::from_tar(&*tree.to_tar(), &SMALL).unwrap().0, tree);
        }
    }

    #[test]
    fn no_bytes_break_the_snapshots_reader(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Tree::from_snapshot(&*bytes, None, &SMALL);
        let compressed = zstd::encode_all(&*bytes, 1).unwrap();
        let _ = Tree::from_snapshot(&*compressed, None, &SMALL);
    }

    #[test]
    fn file_actions_keep_the_rules(tree in trees(), paths in prop::collection::vec(paths(), 1..6)) {
        let mut tree = tree;
        for (index, path) in paths.iter().enumerate() {
            let action = match index % 4 {
                0 => json!({"op": "write", "path": path.as_str(), "text": "x"}),
                1 => json!({"op": "append", "path": path.as_str(), "text": "y"}),
                2 => json!({"op": "mkdir", "path": path.as_str()}),
                _ => json!({"op": "delete", "path": path.as_str()}),
            };
            if let Ok(next) = tree.apply(&change(action), 1, &SMALL) {
                holds_its_rules(&next, &SMALL);
                tree = next;
            }
        }
    }
}

fn mend_checksum(archive: &mut [u8], block: usize) {
    let Some(block) = archive.get_mut(block..block + 512) else {
        return;
    };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An archive of one entry whose name is taken as it stands.
fn archive(entries: &[(EntryType, &[u8], &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (entry_type, name, target, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*entry_type);
        header.set_mode(0o6777);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn what_would_lie_elsewhere_is_refused() {
    let file = EntryType::Regular;
    for name in [
        "/etc/passwd",
        "../a",
        "a/../b",
        "./a",
        "a//b",
        "",
        "//a",
        ".",
    ] {
        let found = Tree::from_tar(&*archive(&[(file, name.as_bytes(), "", b"x")]), &SMALL);
        assert!(
            matches!(found, Err(ArchiveError::Refused { .. })),
            "{name:?}: {found:?}"
        );
    }
    let link = (EntryType::Symlink, b"d".as_slice(), "e", b"".as_slice());
    let directory = (EntryType::Directory, b"e/".as_slice(), "", b"".as_slice());
    for entries in [
        vec![directory, link, (file, b"d/x", "", b"x")],
        vec![(file, b"d", "", b""), (file, b"d/x", "", b"x")],
        vec![(file, b"d/x", "", b"x")],
        vec![(file, b"d", "", b"1"), (file, b"d", "", b"2")],
        vec![directory, directory],
    ] {
        let found = Tree::from_tar(&*archive(&entries), &SMALL);
        assert!(
            matches!(found, Err(ArchiveError::Refused { .. })),
            "{entries:?}: {found:?}"
        );
    }
}

#[test]
fn what_a_workspace_does_not_hold_is_left_out_and_named() {
    let nothing = b"".as_slice();
    let (tree, left_out) = Tree::from_tar(
        &*archive(&[
            (EntryType::Regular, b"kept", "", b"x"),
            (EntryType::Fifo, b"pipe", "", nothing),
            (EntryType::Char, b"char", "", nothing),
            (EntryType::Block, b"disk", "", nothing),
            (EntryType::new(b's'), b"socket", "", nothing),
            (EntryType::Link, b"second", "kept", nothing),
            (EntryType::Symlink, b"out", "/etc/passwd", nothing),
            (EntryType::Symlink, b"up", "..", nothing),
            (EntryType::Regular, b"\xff\xfe", "", b"x"),
            (EntryType::Regular, b"bell\x07", "", b"x"),
        ]),
        &SMALL,
    )
    .unwrap();
    let names: Vec<&str> = tree.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["kept"]);
    let Kind::File { mode, .. } = &tree.get(&path("kept")).unwrap().kind else {
        panic!("no file")
    };
    assert_eq!(mode.bits(), 0o777, "set-id bits stay");
    assert_eq!(left_out.count, 9);
    for said in [
        "pipe is no file",
        "second is a hard link",
        "up leads out",
        "bell\u{FFFD} is too long",
    ] {
        assert!(
            left_out.named.iter().any(|named| named.starts_with(said)),
            "{left_out:?}"
        );
    }
    let many: Vec<_> = (0..30)
        .map(|_| (EntryType::Fifo, b"pipe".as_slice(), "", nothing))
        .collect();
    let (_, left_out) = Tree::from_tar(&*archive(&many), &SMALL).unwrap();
    assert_eq!((left_out.count, left_out.named.len()), (30, 10));
}

#[test]
fn a_name_may_be_as_long_as_a_path_and_no_longer() {
    let long = |length: usize| {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(0);
        builder
            .append_data(&mut header, "x".repeat(length), io::empty())
            .unwrap();
        Tree::from_tar(&*builder.into_inner().unwrap(), &SMALL).unwrap()
    };
    assert_eq!(long(1024).0.len(), 1);
    let (tree, left_out) = long(1025);
    assert_eq!((tree.len(), left_out.count), (0, 1));
}

#[test]
fn sizes_are_counted_as_bytes_are_read() {
    let too_large = archive(&[(EntryType::Regular, b"a", "", &[0; 70_000])]);
    let found = Tree::from_tar(&*too_large, &SMALL);
    assert!(
        matches!(found, Err(ArchiveError::Excess(Excess::Bytes(_)))),
        "{found:?}"
    );
    // Of pages: 17 files of a byte each take more than 64 KiB.
    let names: Vec<String> = (0..17).map(|n| format!("f{n}")).collect();
    let small: Vec<_> = names
        .iter()
        .map(|name| (EntryType::Regular, name.as_bytes(), "", b"x".as_slice()))
        .collect();
    assert!(Tree::from_tar(&*archive(&small[..16]), &SMALL).is_ok());
    let found = Tree::from_tar(&*archive(&small), &SMALL);
    assert!(
        matches!(found, Err(ArchiveError::Excess(Excess::Bytes(_)))),
        "{found:?}"
    );
    let many: Vec<_> = (0..65).map(|n| format!("d{n}")).collect();
    let many: Vec<_> = many
        .iter()
        .map(|name| (EntryType::Directory, name.as_bytes(), "", b"".as_slice()))
        .collect();
    let found = Tree::from_tar(&*archive(&many), &SMALL);
    assert!(
        matches!(found, Err(ArchiveError::Excess(Excess::Entries(_)))),
        "{found:?}"
    );
}

#[test]
fn a_file_with_a_hole_of_200_gigabytes_is_not_filled() {
    // GNU's form: the real size beside the size of the data, and where the data lies. Here there is none.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(200 << 30);
    gnu.sparse[0].set_offset(200 << 30);
    gnu.sparse[0].set_length(0);
    gnu.name[..4].copy_from_slice(b"hole");
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, io::empty()).unwrap();
    let archive = builder.into_inner().unwrap();
    let found = Tree::from_tar(&*archive, &SMALL);
    assert!(
        matches!(found, Err(ArchiveError::Excess(Excess::Bytes(_)))),
        "{found:?}"
    );
}

#[test]
fn a_bomb_is_read_no_further_than_a_workspace_may_be_large() {
    let zeros = io::repeat(0).take(64 << 20);
    let bomb = zstd::encode_all(zeros, 1).unwrap();
    assert!(bomb.len() < 64 << 10);
    let found = Tree::from_snapshot(&*bomb, None, &SMALL);
    assert!(matches!(found, Err(ArchiveError::Excess(_))), "{found:?}");
    // The same without compression, and as a name that never ends.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(8 << 30);
    header.set_cksum();
    let endless = header.as_bytes().chain(io::repeat(b'x'));
    let found = Tree::from_tar(endless, &SMALL);
    assert!(matches!(found, Err(ArchiveError::Excess(_))), "{found:?}");
}

#[test]
fn only_the_snapshot_of_that_name_is_taken() {
    let one = tree(json!([{"path": "a", "type": "file", "text": "1"}]));
    let other = tree(json!([{"path": "a", "type": "file", "text": "2"}]));
    let found = Tree::from_snapshot(&*other.to_snapshot(), Some(&one.digest()), &SMALL);
    assert!(
        matches!(found, Err(ArchiveError::Digest { .. })),
        "{found:?}"
    );
    let link = archive(&[(EntryType::Symlink, b"out", "/etc/passwd", b"")]);
    let found = Tree::from_snapshot(&*zstd::encode_all(&*link, 1).unwrap(), None, &SMALL);
    assert!(
        matches!(found, Err(ArchiveError::Refused { .. })),
        "{found:?}"
    );
}

#[test]
fn the_digest_is_that_of_the_archive_for_good() {
    // A snapshot is found by its digest, so another release must find the same.
    let given = tree(json!([
        {"path": "d", "type": "dir", "mode": "0500", "mtime": 1},
        {"path": "d/f", "type": "file", "mode": "0600", "mtime": 2, "text": "x"},
        {"path": "l", "type": "symlink", "target": "d/f", "mtime": 3},
        {"path": "n".repeat(150), "type": "file"},
    ]));
    assert_eq!(
        given.digest(),
        "07df5b9ee20fe7471583b058be2a7990fa53473aadab10927f3a5522c6e42b5c"
    );
    let nothing = hex::encode(<sha2::Sha256 as sha2::Digest>::digest([0; 1024]));
    assert_eq!(Tree::default().digest(), nothing);
    assert_eq!(
        Tree::from_tar(io::empty(), &SMALL).unwrap().0,
        Tree::default()
    );
}

#[test]
fn entries_go_into_a_tree() {
    let first = tree(json!([
        {"path": "d", "type": "dir", "mode": "0700", "mtime": 5},
        {"path": "d/a", "type": "file", "text": "1"},
        {"path": "e/l", "type": "symlink", "target": "../d/a"},
    ]));
    let node = first.get(&path("e")).unwrap();
    assert_eq!(
        (node.mtime, &node.kind),
        (
            1000,
            &Kind::Directory {
                mode: Mode::DIRECTORY
            }
        )
    );
    let more = Vec::<Entry>::deserialize(json!([
        {"path": "d/a", "type": "file", "text": "2"}, {"path": "d/b/c", "type": "file"},
    ]));
    let second = first.with_entries(&more.unwrap(), 2000).unwrap();
    assert_eq!(
        second.read(&path("d/a"), 1).unwrap(),
        Bytes::from_static(b"2")
    );
    assert_eq!(second.get(&path("d")).unwrap().mtime, 5);
    assert_eq!(second.len(), 6);
    for contradictory in [
        json!([{"path": "a", "type": "file"}, {"path": "a", "type": "dir"}]),
        json!([{"path": "a", "type": "file"}, {"path": "a/b", "type": "file"}]),
        json!([{"path": "e/l/x", "type": "file"}]),
        json!([{"path": "d", "type": "file"}]),
        json!((0..1001).map(|n| json!({"path": format!("f{n}"), "type": "file"})).collect::<Vec<_>>()),
        json!((0..5).map(|n| json!({"path": format!("f{n}"), "type": "file", "text": "x".repeat(220_000)})).collect::<Vec<_>>()),
    ] {
        let entries = Vec::<Entry>::deserialize(contradictory.clone()).unwrap();
        assert!(first.with_entries(&entries, 1).is_err(), "{contradictory}");
    }
}

#[test]
fn parallel_work_is_merged_and_a_conflict_names_the_path() {
    let base = tree(json!([
        {"path": "d", "type": "dir"}, {"path": "d/x", "type": "file", "text": "x"}, {"path": "f", "type": "file"},
    ]));
    let after = |tree: &Tree, action| tree.apply(&change(action), 7, &SMALL).unwrap();
    let one = after(&base, json!({"op": "write", "path": "d/one", "text": "1"}));
    let other = after(
        &base,
        json!({"op": "write", "path": "other/two", "text": "2"}),
    );
    let both = Tree::merge(&base, &one, &other).unwrap();
    let names: Vec<&str> = both.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["d", "d/one", "d/x", "f", "other", "other/two"]);

    let conflict = |one: &Tree, other: &Tree| Tree::merge(&base, one, other).unwrap_err().path;
    let mine = after(&base, json!({"op": "write", "path": "f", "text": "mine"}));
    let theirs = after(
        &base,
        json!({"op": "append", "path": "f", "text": "theirs"}),
    );
    assert_eq!(conflict(&theirs, &mine), path("f"));
    let gone = after(&base, json!({"op": "delete", "path": "f"}));
    assert_eq!(conflict(&gone, &mine), path("f"));
    let emptied = after(&base, json!({"op": "delete", "path": "d/x"}));
    let without = after(&emptied, json!({"op": "delete", "path": "d"}));
    assert_eq!(conflict(&without, &one), path("d/one"));
    assert_eq!(conflict(&one, &without), path("d/one"));
    // The same work twice is no conflict, though it took place at another time.
    let again = base.apply(
        &change(json!({"op": "write", "path": "f", "text": "mine"})),
        9,
        &SMALL,
    );
    let both = Tree::merge(&base, &mine, &again.unwrap()).unwrap();
    assert_eq!(both.get(&path("f")).unwrap().mtime, 9);
}

#[test]
fn file_actions_change_one_path() {
    let given = tree(json!([
        {"path": "d", "type": "dir"}, {"path": "d/f", "type": "file", "text": "a", "mode": "0600"},
        {"path": "l", "type": "symlink", "target": "d"}, {"path": "ld", "type": "symlink", "target": "nowhere"},
    ]));
    let apply = |action: Value| given.apply(&change(action), 7, &SMALL);
    let appended = apply(json!({"op": "append", "path": "d/f", "text": "b"})).unwrap();
    let node = appended.get(&path("d/f")).unwrap();
    let Kind::File { mode, content } = &node.kind else {
        panic!("{node:?}")
    };
    assert_eq!(
        (mode.bits(), &content[..], node.mtime),
        (0o600, b"ab".as_slice(), 7)
    );
    let written =
        apply(json!({"op": "write", "path": "x/y/z", "text": "1", "mode": "0755"})).unwrap();
    assert_eq!(
        written.read(&path("x/y/z"), 1).unwrap(),
        Bytes::from_static(b"1")
    );
    for harmless in [
        json!({"op": "mkdir", "path": "d", "mode": "0700"}),
        json!({"op": "delete", "path": "nothing"}),
        json!({"op": "delete", "path": "no/where"}),
    ] {
        assert_eq!(apply(harmless.clone()).as_ref(), Ok(&given), "{harmless}");
    }
    assert!(
        !apply(json!({"op": "delete", "path": "l"}))
            .unwrap()
            .exists(&path("l"))
    );
    for (action, said) in [
        (
            json!({"op": "write", "path": "d", "text": ""}),
            "d is a directory",
        ),
        (
            json!({"op": "write", "path": "l", "text": ""}),
            "l is a symbolic link",
        ),
        (
            json!({"op": "append", "path": "ld", "text": ""}),
            "ld is a symbolic link",
        ),
        (
            json!({"op": "write", "path": "l/x", "text": ""}),
            "l/x leads through a symbolic link",
        ),
        (
            json!({"op": "delete", "path": "l/f"}),
            "l/f leads through a symbolic link",
        ),
        (
            json!({"op": "mkdir", "path": "l"}),
            "l is there, and is no directory",
        ),
        (
            json!({"op": "mkdir", "path": "d/f/g"}),
            "d/f/g leads through a file",
        ),
        (
            json!({"op": "delete", "path": "d"}),
            "d is a directory that is not empty",
        ),
        (
            json!({"op": "delete", "path": "d/f/g"}),
            "d/f/g leads through a file",
        ),
    ] {
        assert_eq!(apply(action).unwrap_err().to_string(), said);
    }
    for (read, said) in [
        ("l", "is a symbolic link"),
        ("d", "is a directory"),
        ("none", "does not exist"),
        ("l/f", "leads through a symbolic link"),
        ("d/f", "is too large to be checked"),
    ] {
        let told = given.read(&path(read), 0).unwrap_err().to_string();
        assert!(told.ends_with(said), "{told}");
    }
    assert!(given.exists(&path("ld")) && !given.exists(&path("l/f")));
    let large = apply(json!({"op": "write", "path": "big", "text": "x".repeat(70_000)}));
    assert!(matches!(large, Err(ChangeError::Excess(_))), "{large:?}");
}

#[test]
fn patterns_pick_files() {
    let given = tree(json!([
        {"path": "a.txt", "type": "file"}, {"path": "d/b.txt", "type": "file"}, {"path": "d/e/c.txt", "type": "file"},
        {"path": "d.txt", "type": "dir"}, {"path": "l.txt", "type": "symlink", "target": "a.txt"},
    ]));
    let picked = |patterns: &[&str]| {
        let globs = Globs::parse(patterns.iter().copied()).unwrap();
        given
            .matching(&globs)
            .map(|(path, _)| path.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(picked(&["*.txt"]), ["a.txt"]);
    assert_eq!(picked(&["**/*.txt"]), ["a.txt", "d/b.txt", "d/e/c.txt"]);
    assert_eq!(picked(&["d/*", "a.???"]), ["a.txt", "d/b.txt"]);
    assert_eq!(picked(&[]), [""; 0]);
    assert!(
        Globs::parse(["a["])
            .unwrap_err()
            .to_string()
            .contains("malformed")
    );
    assert!(Globs::parse(vec!["a"; 33]).is_err());
    assert!(Globs::parse([&*"a".repeat(1025)]).is_err());
}
