//! The shape of the code, checked: which folder may import which, and how large a file or function may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folder -> the folders it may import. `clock` and `cli` are leaves that anyone may name.
const IMPORTS: &[(&str, &[&str])] = &[
    ("plan", &[]),
    ("credentials", &["plan"]),
    ("telemetry", &["plan"]),
    ("tls", &["plan", "credentials"]),
    ("upstream", &["plan", "telemetry"]),
    ("config", &["plan", "credentials"]),
    ("admin", &["plan", "credentials", "telemetry"]),
    ("proxy", &["plan", "tls", "upstream", "telemetry"]),
    ("cli", &[]),
];
const LEAVES: &[&str] = &["clock", "cli"];

/// External crates that only some files may name, and why.
const RESERVED: &[(&str, &[&str])] = &[
    // One home for TLS, and the one file that loads keys.
    ("rustls::", &["src/tls/", "src/credentials/bundle.rs"]),
    // HTTP is for the admin server only.
    ("hyper::", &["src/admin/"]),
    // `plan` is pure.
    (
        "tokio::",
        &[
            "src/proxy/",
            "src/tls/",
            "src/upstream/",
            "src/admin/server.rs",
            "src/gateway.rs",
            "src/serving.rs",
            "src/observe.rs",
            "src/orders.rs",
            "src/command.rs",
            "src/probe.rs",
        ],
    ),
];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                let relative = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("inside").to_owned();
                found.push((relative, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}: this test would prove nothing");
    found
}

/// The lines above the inline tests.
fn before_tests(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]").collect()
}

fn folder_of(path: &Path) -> Option<&str> {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    let _src = parts.next()?;
    let folder = parts.next()?;
    parts.next().map(|_| folder)
}

#[test]
fn folders_import_only_what_the_architecture_allows() {
    let allowed: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in sources("src") {
        let Some(folder) = folder_of(&path) else { continue };
        let may = allowed.get(folder).unwrap_or_else(|| panic!("{folder} has no row in IMPORTS"));
        for line in before_tests(&text) {
            for import in line.split("crate::").skip(1) {
                let target = import.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
                let target = target.unwrap_or_default();
                seen += 1;
                if target != folder && !may.contains(&target) && !LEAVES.contains(&target) {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} imports seen: this test would prove nothing");
    assert!(wrong.is_empty(), "imports against the architecture:\n{}", wrong.join("\n"));
}

#[test]
fn reserved_crates_are_named_only_where_they_belong() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let place = path.to_string_lossy().into_owned();
        for (name, homes) in RESERVED {
            let at_home = homes.iter().any(|home| place.starts_with(home));
            let names = |line: &&str| !line.trim_start().starts_with("//") && contains_path(line, name);
            if !at_home && before_tests(&text).iter().any(names) {
                wrong.push(format!("{place} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a line names a crate, and not one whose name merely ends like it.
fn contains_path(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        !line[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':')
    })
}

#[test]
fn files_and_functions_stay_small() {
    let mut wrong = Vec::new();
    let all = ["src", "tests", "examples", "benches", "fuzz/fuzz_targets"];
    let present = all.iter().filter(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).is_dir());
    for (path, text) in present.filter(|folder| has_rust(folder)).flat_map(|folder| sources(folder)) {
        let lines = before_tests(&text);
        if lines.len() > FILE_LINES_MAX {
            wrong.push(format!("{}: {} lines before tests", path.display(), lines.len()));
        }
        wrong.extend(long_functions(&path, &lines));
    }
    assert!(
        wrong.is_empty(),
        "over {FILE_LINES_MAX} lines a file or {FUNCTION_LINES_MAX} a function:\n{}",
        wrong.join("\n")
    );
}

fn has_rust(folder: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                return true;
            }
        }
    }
    false
}

/// Functions by the indentation that rustfmt gives them: from `fn` to the brace in its column.
fn long_functions(path: &Path, lines: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let is_function = line.split_whitespace().take(4).any(|word| word == "fn");
        if !is_function || line.trim_start().starts_with("//") || line.trim_end().ends_with(';') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == close);
        if let Some(length) = length.filter(|length| *length > FUNCTION_LINES_MAX) {
            wrong.push(format!("{}:{}: {length} lines: {}", path.display(), start + 1, line.trim()));
        }
    }
    wrong
}

#[test]
fn every_source_file_says_what_it_is() {
    for (path, text) in sources("src") {
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        let limit = if path.ends_with("lib.rs") { 120 } else { 12 };
        assert!((1..=limit).contains(&header), "{}: a header of {header} lines", path.display());
    }
}
