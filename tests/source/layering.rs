//! The layers, as the picture at the top of `src/lib.rs` draws them: a module may use
//! those in rows below its own, and nothing else of the crate.
//!
//! Only code counts, as `reader` reads it; test modules inside files count too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::reader::{code_only, root, sources, tokens, without_tests};

/// Arrows that do not point down, from the user to the used. Each has its reason, and
/// none may be matched by one in the other direction.
const EXCEPTIONS: [(&str, &str); 4] = [
    // the client implements the trait that the layers above it ask for
    ("privicore", "store"),
    // what was typed becomes a configuration
    ("cli", "config"),
    // the composition root serves the socket
    ("mount", "control"),
    // nonces need randomness
    ("crypto", "env"),
];

/// Longest source file, in lines. 600 is the aim; the rest is room for a test module.
const LONGEST: usize = 700;

/// The module below `src` that a file belongs to; `None` for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    let name = first.trim_end_matches(".rs");
    (!["lib", "main"].contains(&name)).then(|| name.to_owned())
}

/// The first segments of every path that begins with `crate::`, groups unfolded.
fn used(tokens: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, window) in tokens.windows(3).enumerate() {
        if window[0] != "crate" || window[1] != "::" {
            continue;
        }
        if window[2] != "{" {
            found.insert(window[2].clone());
            continue;
        }
        let (mut depth, mut first) = (0, true);
        for token in &tokens[at + 2..] {
            match token.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                "," if depth == 1 => first = true,
                word if depth == 1 && first => {
                    found.insert(word.to_owned());
                    first = false;
                }
                _ => {}
            }
            if depth == 1 && token == "{" {
                first = true;
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// Modules by row of the picture, the top row first.
fn picture(lib: &str) -> BTreeMap<String, usize> {
    let modules: BTreeSet<String> = declared(lib);
    let drawn = lib
        .lines()
        .skip_while(|line| !line.starts_with("//! ```"))
        .skip(1)
        .take_while(|line| !line.starts_with("//! ```"));
    let mut rows = BTreeMap::new();
    for (row, line) in drawn.enumerate() {
        let cells = line.trim_start_matches("//!").split("  ").map(str::trim);
        for module in cells.filter(|cell| modules.contains(*cell)) {
            assert!(rows.insert(module.to_owned(), row).is_none(), "{module} is drawn twice");
        }
    }
    let missing: Vec<_> = modules.iter().filter(|module| !rows.contains_key(*module)).collect();
    assert!(missing.is_empty(), "not in the picture of src/lib.rs: {missing:?}");
    rows
}

fn declared(lib: &str) -> BTreeSet<String> {
    let words = tokens(&code_only(lib));
    words.windows(2).filter(|pair| pair[0] == "mod").map(|pair| pair[1].clone()).collect()
}

#[test]
fn every_arrow_points_down() {
    let sources = sources();
    let lib = fs::read_to_string(root().join("lib.rs")).unwrap();
    let rows = picture(&lib);
    let mut wrong = Vec::new();
    for (path, text) in &sources {
        let Some(module) = module_of(path) else { continue };
        for target in used(&tokens(&code_only(text))) {
            let Some(&row) = rows.get(&target) else {
                wrong.push(format!("{}: crate::{target} is no module", path.display()));
                continue;
            };
            let excepted = EXCEPTIONS.contains(&(module.as_str(), target.as_str()));
            let reversed = EXCEPTIONS.contains(&(target.as_str(), module.as_str()));
            let down = row > rows[&module] && !reversed;
            if target != module && !down && !excepted {
                wrong.push(format!("{}: {module} uses {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn the_engine_knows_only_the_protocol_and_the_environment() {
    for (path, text) in sources() {
        if module_of(&path).as_deref() != Some("engine") {
            continue;
        }
        let mut targets = used(&tokens(&code_only(&text)));
        for allowed in ["engine", "protocol", "env"] {
            targets.remove(allowed);
        }
        assert!(targets.is_empty(), "{}: {targets:?}", path.display());
    }
}

/// Files outside `module` whose code has the given words in a row.
fn outside(module: &str, words: &[&str]) -> Vec<PathBuf> {
    let has =
        |text: &str| tokens(&code_only(text)).windows(words.len()).any(|found| found == words);
    let elsewhere = |path: &Path| module_of(path).as_deref() != Some(module);
    sources()
        .into_iter()
        .filter(|(path, text)| elsewhere(path) && has(text))
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn only_the_adapter_names_the_kernel_binding() {
    assert_eq!(outside("fuse", &["fuser"]), [] as [PathBuf; 0]);
}

#[test]
fn only_env_reads_the_wall_clock() {
    assert_eq!(outside("env", &["SystemTime", "::", "now"]), [] as [PathBuf; 0]);
}

/// A test module inside a file is one level deeper, so there it is the file's parent.
#[test]
fn nobody_reaches_over_a_parent() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| {
            let code = without_tests(text);
            tokens(&code_only(code)).windows(3).any(|found| found == ["super", "::", "super"])
        })
        .map(|(path, _)| path)
        .collect();
    assert_eq!(wrong, [] as [PathBuf; 0]);
}

/// The files of some layers whose code, tests aside, `does` something.
fn files_of(layers: &[&str], does: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let is_of = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        module_of(path).is_some_and(|module| layers.contains(&module.as_str())) && name != "tests"
    };
    let found =
        sources().into_iter().filter(|(path, text)| is_of(path) && does(without_tests(text)));
    found.map(|(path, _)| path).collect()
}

/// The layers below the kernel binding, whose files a test must be able to replace. (The
/// local database names its folder only; the crate beneath it opens the files.)
const ON_THE_DISK_OF_ENV: [&str; 5] = ["vfs", "catalog", "content", "store", "db"];

/// Whether code reaches local files by itself: the standard library's, tokio's and rustix's
/// modules are all called `fs`, and a `Path` has a few calls of its own.
fn reaches_files(code: &str) -> bool {
    let words = tokens(&code_only(code));
    let of_a_path = ["exists", "try_exists", "metadata", "symlink_metadata", "canonicalize"];
    words.iter().any(|word| ["fs", "OpenOptions", "DirBuilder"].contains(&word.as_str()))
        || words.windows(2).any(|pair| pair == ["File", "::"])
        || words
            .windows(3)
            .any(|call| call[0] == "." && of_a_path.contains(&call[1].as_str()) && call[2] == "(")
}

#[test]
fn layers_below_the_kernel_binding_reach_files_through_the_disk_of_env() {
    assert_eq!(files_of(&ON_THE_DISK_OF_ENV, reaches_files), [] as [PathBuf; 0]);
}

#[test]
fn every_way_to_a_file_is_recognized() {
    let ways = [
        "use std::fs::File;",
        "use std::{fs, io};",
        "use std::os::unix::fs::MetadataExt;",
        "let text = tokio::fs::read(path).await;",
        "rustix::fs::statvfs(dir)?",
        "let file = File::open(path)?;",
        "OpenOptions::new().read(true)",
        "if path.exists() {",
    ];
    for way in ways {
        assert!(reaches_files(way), "{way}");
    }
    for other in ["// std::fs", "Kind::File => \"fs\"", "self.env.disk.read(path)", "xfs::f()"] {
        assert!(!reaches_files(other), "{other}");
    }
}

/// The layers whose tasks, blocking work and threads a test must be able to replace.
const ON_THE_TASKS_OF_ENV: [&str; 7] =
    ["privicore", "store", "vfs", "catalog", "content", "db", "crypto"];

/// Whether code starts work beside the caller by itself, through tokio or the standard
/// library. `env.spawn(`, `env.tasks.spawn_blocking(` and a function named `spawn` of a
/// module's own, called as `self.spawn(`, are the ways that remain.
fn starts_work(code: &str) -> bool {
    let words = tokens(&code_only(code));
    let starts = |at: usize| {
        let before = |back: usize| at.checked_sub(back).map_or("", |at| words[at].as_str());
        match words[at].as_str() {
            "spawn" | "spawn_blocking" | "spawn_local" | "spawn_on" => {
                let through_env = ["env", "tasks", "self"].contains(&before(2));
                !(before(1) == "fn" || before(1) == "." && through_env)
            }
            // The method `thread` of `Tasks` and variables are not the module.
            "thread" => before(1) == "::" || words.get(at + 1).is_some_and(|next| next == "::"),
            "block_in_place" | "JoinSet" | "LocalSet" => true,
            _ => false,
        }
    };
    (0..words.len()).any(starts)
}

#[test]
fn layers_below_the_kernel_binding_start_work_through_the_tasks_of_env() {
    assert_eq!(files_of(&ON_THE_TASKS_OF_ENV, starts_work), [] as [PathBuf; 0]);
}

#[test]
fn every_way_to_start_work_is_recognized() {
    let ways = [
        "tokio::spawn(work);",
        "tokio::task::spawn_blocking(work);",
        "task::spawn_local(work);",
        "use tokio::task::spawn_blocking;",
        "runtime.spawn(work);",
        "Handle::current().spawn_blocking(work);",
        "std::thread::spawn(work);",
        "thread::Builder::new().spawn(work)?;",
        "use std::{io, thread}; fn f() { thread::scope(work) }",
        "let mut set = JoinSet::new();",
    ];
    for way in ways {
        assert!(starts_work(way), "{way}");
    }
    let others = [
        "// tokio::spawn(work)",
        "drop(self.env.spawn(work));",
        "env.tasks.spawn_blocking(work);",
        "let thread = env.tasks.thread(name, work)?; thread.join();",
        "fn spawn(&self) {} fn f(&self) { self.spawn(work) }",
    ];
    for other in others {
        assert!(!starts_work(other), "{other}");
    }
}

#[test]
fn only_the_output_module_prints() {
    let macros = ["println", "print", "eprintln", "eprint"];
    let printing = macros.iter().flat_map(|name| outside("", &[name, "!"]));
    let allowed = root().join("cli").join("output.rs");
    assert_eq!(printing.filter(|path| *path != allowed).collect::<Vec<_>>(), [] as [PathBuf; 0]);
}

#[test]
fn no_file_is_longer_than_can_be_read() {
    let mut long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|(lines, _)| *lines > LONGEST)
        .collect();
    long.sort();
    let list: Vec<_> =
        long.iter().map(|(lines, path)| format!("{lines:5} {}", path.display())).collect();
    assert!(long.is_empty(), "longer than {LONGEST} lines:\n{}", list.join("\n"));
}

/// The reader of sources, tested on what it must not be fooled by.
#[test]
fn the_reader_sees_code_and_nothing_else() {
    let text = r##"
        //! crate::comment
        /* crate::block /* nested */ crate::block */
        use crate::{a::{x, y}, b, c as d};
        use crate::e;
        fn f<'a>(s: &'a str) -> char { let _ = "crate::string \" crate::string"; '\'' }
        const R: &str = r#"crate::raw " "#; const B: u8 = b'"';
        fn g() { crate::g::h(); let r = 1; }
    "##;
    let found = used(&tokens(&code_only(text)));
    let expected = ["a", "b", "c", "e", "g"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn the_picture_is_read_by_rows() {
    let lib = "//! ```text\n//! top   what it does\n//! left  words here   right  more\n//! ```\n\
               pub mod left; pub mod right; pub mod top;";
    let rows = picture(lib);
    assert!(rows["top"] < rows["left"]);
    assert_eq!(rows["left"], rows["right"]);
}

/// A `select!` without `biased` draws the order in which it looks at its branches, and two
/// runs of one seed would differ.
#[test]
fn every_select_below_the_adapter_has_a_chosen_order() {
    let rows = picture(&fs::read_to_string(root().join("lib.rs")).unwrap());
    let mut drawn = Vec::new();
    for (path, text) in sources() {
        if module_of(&path).is_none_or(|module| rows[&module] <= rows["fuse"]) {
            continue;
        }
        let words = tokens(&code_only(&text));
        let selects = words.windows(5).filter(|words| words[..2] == ["select", "!"]);
        if selects.into_iter().any(|words| words[3..] != ["biased", ";"]) {
            drawn.push(path);
        }
    }
    assert_eq!(drawn, [] as [PathBuf; 0], "`select!` without `biased`");
}

#[test]
fn only_the_transport_that_ships_names_its_crates() {
    let client = root().join("privicore");
    let shipped = [client.join("http.rs"), client.join("socket.rs")];
    for name in ["reqwest", "tokio_tungstenite", "rustls"] {
        let naming = outside("", &[name]);
        let elsewhere: Vec<_> = naming.iter().filter(|path| !shipped.contains(path)).collect();
        assert!(elsewhere.is_empty() && !naming.is_empty(), "{name}: {elsewhere:?}");
    }
}
