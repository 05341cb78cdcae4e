//! Workspaces on a real file system: layout, file actions, and links that point elsewhere.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, geteuid};
use octollm_executor::action::{Action, FileChange};
use octollm_executor::workspace::file::FileError;
use octollm_executor::workspace::{
    Entry, LayoutError, Owner, Removal, Workspace, WorkspacePath, Workspaces,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

fn owner() -> Option<Owner> {
    geteuid().is_root().then(|| Owner {
        uid: Uid::from_raw(65534),
        gid: Gid::from_raw(65534),
    })
}

fn workspaces() -> (TempDir, Workspaces) {
    let root = tempfile::tempdir().unwrap();
    let workspaces = Workspaces::new(&root.path().join("workspaces"), owner()).unwrap();
    (root, workspaces)
}

fn entries(entries: Value) -> Vec<Entry> {
    Vec::<Entry>::deserialize(entries).unwrap()
}

fn change(action: Value) -> FileChange {
    let mut action = action;
    action["kind"] = json!("file");
    match Action::parse(&action).unwrap() {
        Action::File(change) => change,
        other => panic!("{other:?}"),
    }
}

fn path(text: &str) -> WorkspacePath {
    text.to_owned().try_into().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn entries_keep_their_modes_and_times() {
    let (_root, workspaces) = workspaces();
    let laid_out = workspaces
        .lay_out(
            Uuid::new_v4(),
            &entries(json!([
                {"path": "closed", "type": "dir", "mode": "0500", "mtime": 1_000_000_000},
                {"path": "closed/inner", "type": "dir", "mode": "0750", "mtime": 1_000_000_001},
                {"path": "closed/inner/a.txt", "type": "file", "mode": "0400", "mtime": 1_000_000_002, "text": "a\n"},
                {"path": "implied/b.bin", "type": "file", "base64": "AP8="},
                {"path": "closed/link", "type": "symlink", "target": "../implied/b.bin", "mtime": 1_000_000_003},
                {"path": "run.sh", "type": "file", "mode": "755", "mtime": 0, "text": "exit 0\n"}
            ])),
        )
        .unwrap();
    let root = laid_out.path();
    for (name, expected_mode, expected_time) in [
        ("closed", 0o500, Some(1_000_000_000)),
        ("closed/inner", 0o750, Some(1_000_000_001)),
        ("closed/inner/a.txt", 0o400, Some(1_000_000_002)),
        ("implied", 0o755, None),
        ("implied/b.bin", 0o644, None),
        ("closed/link", 0o777, Some(1_000_000_003)),
        ("run.sh", 0o755, Some(0)),
    ] {
        let found = fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!(mode(&root.join(name)), expected_mode, "mode of {name}");
        if let Some(time) = expected_time {
            assert_eq!(found.mtime(), time, "time of {name}");
        }
        assert_eq!(
            found.uid(),
            owner().map_or(geteuid().as_raw(), |owner| owner.uid.as_raw()),
            "owner of {name}"
        );
    }
    assert_eq!(fs::read(root.join("implied/b.bin")).unwrap(), [0, 255]);
    assert_eq!(
        fs::read_link(root.join("closed/link")).unwrap(),
        PathBuf::from("../implied/b.bin")
    );
    assert_eq!(mode(root), 0o700, "other users of the host could look in");
    assert_eq!(
        mode(root.parent().unwrap()),
        0o700,
        "other users of the host could look in"
    );
    let _ = fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o700));
}

#[test]
fn entries_that_contradict_the_contract_are_refused() {
    for entry in [
        json!({"path": "../a", "type": "file"}),
        json!({"path": "a", "type": "file", "target": "b"}),
        json!({"path": "a", "type": "dir", "text": ""}),
        json!({"path": "a", "type": "device"}),
        json!({"path": "a", "type": "file", "mode": "4755"}),
        json!({"path": "a", "type": "file", "mtime": -1}),
        json!({"path": "a", "type": "file", "owner": "root"}),
        json!({"path": "a", "type": "symlink"}),
        json!({"path": "a", "type": "symlink", "target": "/etc/passwd"}),
        json!({"path": "a", "type": "symlink", "target": ".."}),
        json!({"path": "a/b", "type": "symlink", "target": "../.."}),
        json!({"path": "a/b", "type": "symlink", "target": "c/../../.."}),
        json!({"path": "a", "type": "symlink", "target": "b/../c"}),
    ] {
        assert!(Entry::deserialize(&entry).is_err(), "accepted {entry}");
    }
    for good in [
        json!({"path": "a", "type": "symlink", "target": "b"}),
        json!({"path": "a/b", "type": "symlink", "target": ".."}),
        json!({"path": "a/b", "type": "symlink", "target": "../c/d"}),
    ] {
        assert!(Entry::deserialize(&good).is_ok(), "refused {good}");
    }
}

#[test]
fn a_layout_that_fails_leaves_nothing_behind() {
    let (_root, workspaces) = workspaces();
    for contradictory in [
        json!([{"path": "a", "type": "file"}, {"path": "a", "type": "dir"}]),
        json!([{"path": "a", "type": "file"}, {"path": "a/b", "type": "file"}]),
        json!([{"path": "d", "type": "dir"}, {"path": "d/l", "type": "symlink", "target": ".."},
               {"path": "d/l/x", "type": "file"}]),
    ] {
        let task = Uuid::new_v4();
        assert!(
            workspaces
                .lay_out(task, &entries(contradictory.clone()))
                .is_err(),
            "{contradictory}"
        );
        assert!(workspaces.find(task).unwrap().is_none());
    }
    let too_many: Vec<Entry> = entries(
        (0..1001)
            .map(|number| json!({"path": number.to_string(), "type": "dir"}))
            .collect(),
    );
    assert!(matches!(
        workspaces.lay_out(Uuid::new_v4(), &too_many),
        Err(LayoutError::Invalid(_))
    ));
}

#[test]
fn what_a_crash_left_half_made_is_never_a_workspace() {
    let (root, workspaces) = workspaces();
    let task = Uuid::new_v4();
    let staging = root.path().join("workspaces/.laying-0");
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("half"), "").unwrap();
    assert!(workspaces.find(task).unwrap().is_none());
    let laid_out = workspaces
        .lay_out(task, &entries(json!([{"path": "whole", "type": "file"}])))
        .unwrap();
    assert!(laid_out.exists(&path("whole")) && !laid_out.exists(&path("half")));

    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    fs::File::open(&staging)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    Workspaces::new(&root.path().join("workspaces"), owner()).unwrap();
    assert!(
        !staging.exists(),
        "an abandoned staging directory stays for ever"
    );
    assert!(
        workspaces.find(task).unwrap().is_some(),
        "a whole workspace was swept away"
    );
}

#[test]
fn of_two_layouts_at_once_one_is_the_workspace() {
    let (_root, workspaces) = workspaces();
    let task = Uuid::new_v4();
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let workspaces = &workspaces;
                scope.spawn(move || {
                    let entry = json!([{"path": format!("by-{number}"), "type": "file"}]);
                    workspaces
                        .lay_out(task, &entries(entry))
                        .unwrap()
                        .path()
                        .to_owned()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(paths.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(
        fs::read_dir(&paths[0]).unwrap().count(),
        1,
        "two layouts were mixed"
    );
    assert_eq!(
        fs::read_dir(paths[0].parent().unwrap()).unwrap().count(),
        1,
        "a staging directory stays"
    );
}

fn empty_workspace() -> (TempDir, Workspace) {
    let (root, workspaces) = workspaces();
    let workspace = workspaces.lay_out(Uuid::new_v4(), &[]).unwrap();
    (root, workspace)
}

#[test]
fn file_actions_do_what_they_say_and_may_be_repeated() {
    let (_root, workspace) = empty_workspace();
    let at = |name: &str| workspace.path().join(name);
    for _ in 0..2 {
        workspace
            .change(&change(
                json!({"op": "write", "path": "d/a", "text": "1\n", "mode": "0600"}),
            ))
            .unwrap();
        assert_eq!(
            (
                fs::read_to_string(at("d/a")).unwrap().as_str(),
                mode(&at("d/a"))
            ),
            ("1\n", 0o600)
        );
        workspace
            .change(&change(
                json!({"op": "mkdir", "path": "e/f", "mode": "0700"}),
            ))
            .unwrap();
        assert_eq!(mode(&at("e/f")), 0o700);
    }
    workspace
        .change(&change(
            json!({"op": "append", "path": "d/a", "base64": "Mgo="}),
        ))
        .unwrap();
    workspace
        .change(&change(
            json!({"op": "append", "path": "g/new", "text": "3\n"}),
        ))
        .unwrap();
    assert_eq!(workspace.read(&path("d/a"), 100).unwrap(), b"1\n2\n");
    assert_eq!(
        (
            workspace.read(&path("g/new"), 100).unwrap(),
            mode(&at("g/new"))
        ),
        (b"3\n".to_vec(), 0o644)
    );
    if let Some(owner) = owner() {
        for name in ["d", "d/a", "e", "e/f", "g", "g/new"] {
            assert_eq!(
                fs::metadata(at(name)).unwrap().uid(),
                owner.uid.as_raw(),
                "the steps could not use {name}"
            );
        }
    }
    for _ in 0..2 {
        workspace
            .change(&change(json!({"op": "delete", "path": "d/a"})))
            .unwrap();
        workspace
            .change(&change(json!({"op": "delete", "path": "e/f"})))
            .unwrap();
    }
    assert!(!at("d/a").exists() && !at("e/f").exists());
    let full = workspace
        .change(&change(json!({"op": "delete", "path": "g"})))
        .unwrap_err();
    assert!(matches!(full, FileError::Refused { .. }), "{full}");
    assert_eq!(
        fs::read_dir(at("d")).unwrap().count(),
        0,
        "a staged file stays"
    );
}

#[test]
fn no_file_action_follows_a_link() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "kept").unwrap();
    let (_root, workspace) = empty_workspace();
    let inside = workspace.path();
    symlink(outside.path(), inside.join("dir")).unwrap();
    symlink(outside.path().join("secret"), inside.join("file")).unwrap();
    symlink("/proc/self/root", inside.join("magic")).unwrap();
    fs::write(inside.join("own"), "own").unwrap();
    symlink("own", inside.join("harmless")).unwrap();

    for target in ["dir/secret", "dir/new", "file", "magic/tmp/new", "harmless"] {
        for op in ["write", "append"] {
            let result = workspace.change(&change(
                json!({"op": op, "path": target, "text": "overwritten"}),
            ));
            assert!(
                matches!(
                    result,
                    Err(FileError::Unsuitable { .. } | FileError::Refused { .. })
                ),
                "{op} {target}"
            );
        }
        assert!(workspace.read(&path(target), 100).is_err(), "read {target}");
    }
    assert!(
        workspace
            .change(&change(json!({"op": "mkdir", "path": "dir/new"})))
            .is_err()
    );
    assert!(
        workspace
            .change(&change(json!({"op": "delete", "path": "dir/secret"})))
            .is_err()
    );
    assert!(!workspace.exists(&path("dir/secret")));
    assert!(workspace.exists(&path("file")), "the link itself is there");
    workspace
        .change(&change(json!({"op": "delete", "path": "file"})))
        .unwrap();
    assert!(!workspace.exists(&path("file")));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(
        fs::read_to_string(outside.path().join("secret")).unwrap(),
        "kept"
    );
    assert_eq!(fs::read_to_string(inside.join("own")).unwrap(), "own");
}

#[test]
fn only_regular_files_are_read_and_written() {
    let (_root, workspace) = empty_workspace();
    let fifo = workspace.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(workspace.path().join("dir")).unwrap();
    fs::write(workspace.path().join("one"), "12345").unwrap();
    fs::hard_link(workspace.path().join("one"), workspace.path().join("two")).unwrap();
    for name in ["fifo", "dir"] {
        assert!(workspace.read(&path(name), 100).is_err(), "read {name}");
        for op in ["write", "append"] {
            assert!(
                workspace
                    .change(&change(json!({"op": op, "path": name, "text": "x"})))
                    .is_err(),
                "{op} {name}"
            );
        }
    }
    assert!(
        workspace
            .change(&change(json!({"op": "append", "path": "two", "text": "x"})))
            .is_err()
    );
    assert_eq!(workspace.read(&path("one"), 5).unwrap(), b"12345");
    assert!(
        matches!(
            workspace.read(&path("one"), 4),
            Err(FileError::Unsuitable { .. })
        ),
        "more than asked for"
    );
}

#[test]
fn a_workspace_is_removed_once_nobody_holds_it() {
    let (root, workspaces) = workspaces();
    let (task, other) = (Uuid::new_v4(), Uuid::new_v4());
    let files = entries(json!([{"path": "a/b", "type": "file", "text": "x"}]));
    let (one, two) = (
        workspaces.lay_out(task, &files).unwrap(),
        workspaces.find(task).unwrap().unwrap(),
    );
    drop(workspaces.lay_out(other, &files).unwrap());
    // Another process has its own view of the same directory.
    let elsewhere = Workspaces::new(&root.path().join("workspaces"), owner()).unwrap();
    for held in [one, two] {
        assert_eq!(elsewhere.remove(task).unwrap(), Removal::Held);
        assert!(held.path().join("a/b").exists());
    }
    assert_eq!(elsewhere.remove(task).unwrap(), Removal::Removed);
    assert_eq!(elsewhere.remove(task).unwrap(), Removal::Absent);
    assert!(workspaces.find(task).unwrap().is_none());
    assert_eq!(workspaces.tasks().unwrap(), [other]);
    let left = fs::read_dir(root.path().join("workspaces")).unwrap();
    assert_eq!(left.count(), 1, "something stays");
}
