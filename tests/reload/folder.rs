//! What of the files counts, and what is said of it.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::scene::{SIDECAR, Scene, entry};
use crate::support::socket::{Backend, connect, echo};
use crate::support::wait_until;

#[test]
fn w5_what_is_wrong_is_told_once_with_its_line_and_the_old_plan_stays() {
    let backend = Backend::echo();
    let text = entry("a.example", 3306, backend.address);
    let poll = [SIDECAR, &["--credentials-poll=20ms"]].concat();
    let scene = Scene::new(&poll, &[("a.yaml", &text)]);
    scene.write("a.yaml", &text.replace("hosts:", "hots:"));
    scene.program.wait_for_stderr("configuration refused");
    let refused = scene.program.stderr();
    assert!(refused.contains("a.yaml:6:3") && refused.contains("\"kept_generation\":1"), "{refused}");
    echo(&mut connect(scene.program.address), "under the old plan");
    // Taken back, and changed for good: a new content rests for many polls before it is compiled.
    scene.write("a.yaml", &text);
    scene.program.wait_for_stderr("configuration is again the one in use");
    scene.write("b.yaml", "kind: [");
    wait_until("a second refusal", || scene.program.said("configuration refused") == 2);
    assert!(scene.program.stderr().contains("b.yaml:2:1"), "{}", scene.program.stderr());
    scene.write("b.yaml", &entry("b.example", 3307, backend.address));
    scene.wait_for_load(0);
    assert_eq!((scene.program.said("configuration refused"), scene.loaded()), (2, 1));
    echo(&mut connect(scene.opened(3307)), "under the new plan");
}

#[test]
fn the_same_content_is_no_reload_and_the_same_meaning_no_new_plan() {
    let backend = Backend::echo();
    let text = entry("a.example", 3306, backend.address);
    let scene = Scene::new(SIDECAR, &[("a.yaml", &text)]);
    scene.write("a.yaml", &text);
    scene.program.signal("HUP");
    scene.write("a.yaml", &format!("# a comment moves every line\n{text}"));
    scene.program.wait_for_stderr("configuration read again, it means the same");
    scene.follow("b.yaml", &entry("b.example", 3307, backend.address));
    let said = scene.program.stderr();
    assert_eq!(said.matches("configuration").count(), 2, "{said}");
    assert!(said.contains("\"generation\":2"), "{said}");
}

#[test]
fn a_signal_is_obeyed_at_once_and_answered_again() {
    let backend = Backend::echo();
    let text = entry("a.example", 3306, backend.address);
    let scene = Scene::new(&[SIDECAR, &["--credentials-poll=1h"]].concat(), &[("a.yaml", &text)]);
    for number in 1..=3 {
        scene.write("b.yaml", "kind: [");
        scene.program.signal("HUP");
        wait_until("an answer", || scene.program.said("configuration refused") >= number);
    }
    scene.follow("b.yaml", &entry("b.example", 3307, backend.address));
    echo(&mut connect(scene.opened(3307)), "under the new plan");
}

/// Makes a folder what a mounted ConfigMap is: its files are links through `..data`, which is swapped.
fn swap(folder: &Path, version: &str, texts: &[(&str, String)]) {
    let place = folder.join(format!("..{version}"));
    std::fs::create_dir(&place).expect("a folder");
    for (name, text) in texts {
        std::fs::write(place.join(name), text).expect("written");
    }
    symlink(format!("..{version}"), folder.join("..data_tmp")).expect("a link");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("swapped");
    for (name, _) in texts.iter().filter(|(name, _)| !folder.join(name).is_symlink()) {
        symlink(Path::new("..data").join(name), folder.join(name)).expect("a link");
    }
}

#[test]
fn a_mounted_config_map_is_followed_as_one() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let texts = |backend: &Backend| {
        [
            ("a.yaml", entry("a.example", 3306, backend.address)),
            ("b.yaml", entry("b.example", 3307, backend.address)),
        ]
    };
    let scene = Scene::with(SIDECAR, |folder| swap(folder, "one", &texts(&one)));
    let other = scene.opened(3307);
    for (version, backend) in [("two", &two), ("three", &one), ("four", &two)] {
        let loaded = scene.loaded();
        let before = backend.dialled();
        swap(&scene.config(), version, &texts(backend));
        scene.wait_for_load(loaded);
        echo(&mut connect(scene.program.address), "one port");
        echo(&mut connect(other), "and the other");
        assert_eq!(backend.dialled(), before + 2);
    }
    // Each swap was one reload of both files.
    assert_eq!(scene.loaded(), 3);
}

#[test]
fn a_folder_that_vanishes_leaves_the_plan_and_is_followed_when_it_is_back() {
    let backend = Backend::echo();
    let scene = Scene::new(SIDECAR, &[("a.yaml", &entry("a.example", 3306, backend.address))]);
    let aside = scene.folder.path().join("aside");
    std::fs::rename(scene.config(), &aside).expect("moved");
    scene.program.wait_for_stderr("configuration refused");
    echo(&mut connect(scene.program.address), "without a folder");
    std::fs::write(aside.join("b.yaml"), entry("b.example", 3307, backend.address)).expect("written");
    std::fs::rename(&aside, scene.config()).expect("moved");
    scene.wait_for_load(0);
    echo(&mut connect(scene.opened(3307)), "with the folder");
}
