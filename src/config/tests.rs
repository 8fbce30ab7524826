use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::env::doubles::seeded_env;

/// A home, an environment and a command line.
struct Bench {
    root: TempDir,
    env: HashMap<&'static str, OsString>,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    layer: Layer,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["mnt", "run", "config/privicorefs"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let env = HashMap::from([
            ("HOME", root.path().as_os_str().to_owned()),
            ("XDG_CONFIG_HOME", root.path().join("config").into_os_string()),
            ("XDG_RUNTIME_DIR", root.path().join("run").into_os_string()),
        ]);
        Self { root, env }
    }

    /// With a service's login in the environment and a key.
    fn with_service() -> Self {
        let mut bench = Self::new();
        let key = bench.root.path().join("key");
        MasterKey::generate(&key, seeded_env(1).random.as_ref()).unwrap();
        bench.env.extend([
            ("PRIVICORE_API_URL", "https://api.example.com:9009".into()),
            ("PRIVICORE_WS_URL", "wss://ws.example.com:8083".into()),
            ("PRIVICORE_USERNAME", "from-env".into()),
            ("PRIVICORE_PASSWORD", "hunter2".into()),
            ("PRIVICOREFS_KEY_FILE", key.into_os_string()),
        ]);
        bench
    }

    fn file(&self, text: &str) {
        fs::write(self.root.path().join("config/privicorefs/config.toml"), text).unwrap();
    }

    fn secret(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.root.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn resolve(&self, flags: &[&str]) -> Result<MountConfig, ConfigError> {
        let flags = Flags::try_parse_from([&["x"], flags].concat()).unwrap();
        let env = |name: &str| self.env.get(name).cloned();
        resolve(&self.root.path().join("mnt"), flags.layer, None, &env)
    }

    fn service(&self, flags: &[&str]) -> Service {
        match self.resolve(flags).unwrap().backend {
            Backend::Service(service) => *service,
            Backend::Embedded { dir } => panic!("embedded in {dir:?}"),
        }
    }
}

#[test]
fn flags_go_over_environment_over_file_over_defaults() {
    let bench = Bench::with_service();
    bench.file("username = \"from-file\"\ncache_size = \"5GiB\"\nparallel = 3\n");
    assert_eq!(bench.service(&[]).username, "from-env");
    assert_eq!(bench.service(&["--username", "from-flag"]).username, "from-flag");
    let config = bench.resolve(&["--parallel", "4"]).unwrap();
    assert_eq!(config.tuning.cache_limit, 5 << 30, "the file's");
    assert_eq!(config.tuning.parallel, 4, "the flag's");
    assert_eq!(config.tuning.memory, 96 << 20, "the default");
    assert_eq!(config.tuning.split_above, Some(64 << 20));
    assert_eq!(config.tuning.durability, Durability::Fsync);
    assert_eq!(config.drain_timeout, Duration::from_secs(60));
}

#[test]
fn an_unknown_name_in_the_file_is_an_error_that_names_the_line() {
    let bench = Bench::with_service();
    bench.file("# fine\nusernam = \"typo\"\n");
    let error = bench.resolve(&[]).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("usernam"), "{error}");
}

#[test]
fn errors_in_the_file_do_not_quote_its_values() {
    let bench = Bench::with_service();
    bench.file("api_url = \"https://me:hunter2@example.com\" oops\n");
    let error = bench.resolve(&[]).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_named_file_must_exist() {
    let bench = Bench::with_service();
    let env = |name: &str| bench.env.get(name).cloned();
    let missing = bench.root.path().join("missing.toml");
    let mount_point = bench.root.path().join("mnt");
    let error = resolve(&mount_point, Layer::default(), Some(&missing), &env).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

#[test]
fn paths_in_the_file_are_relative_to_it() {
    let bench = Bench::new();
    bench.file("embedded = \"vault\"\n");
    match bench.resolve(&[]).unwrap().backend {
        Backend::Embedded { dir } => {
            let root = bench.root.path().canonicalize().unwrap();
            assert_eq!(dir, root.join("config/privicorefs/vault"));
        }
        Backend::Service(_) => panic!("a service"),
    }
}

#[test]
fn no_secret_is_shown() {
    let bench = Bench::with_service();
    let shown = format!("{:?}", bench.resolve(&[]).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_password_comes_from_flag_then_environment_then_file() {
    let mut bench = Bench::with_service();
    let flag = bench.secret("flag", "by-flag\n", 0o600);
    let file = bench.secret("file", "by-file\r\n", 0o600);
    bench.file(&format!("password_file = {file:?}\n"));
    let password =
        |bench: &Bench, flags: &[&str]| bench.service(flags).password.expose().to_owned();
    assert_eq!(password(&bench, &["--password-file", flag.to_str().unwrap()]), "by-flag");
    assert_eq!(password(&bench, &[]), "hunter2");
    bench.env.remove("PRIVICORE_PASSWORD");
    assert_eq!(password(&bench, &[]), "by-file");
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let mut bench = Bench::with_service();
    let exposed = bench.secret("exposed", "x", 0o640);
    let error = bench.resolve(&["--password-file", exposed.to_str().unwrap()]).unwrap_err();
    assert!(matches!(error, ConfigError::Exposed { mode: 0o640, .. }), "{error}");
    let key = bench.secret("open-key", &"ab".repeat(32), 0o644);
    bench.env.insert("PRIVICOREFS_KEY_FILE", key.into_os_string());
    assert!(matches!(bench.resolve(&[]).unwrap_err(), ConfigError::Key(_)));
}

#[test]
fn the_embedded_engine_needs_nothing_else() {
    let bench = Bench::new();
    let vault = bench.root.path().join("vault");
    let config = bench.resolve(&["--embedded", vault.to_str().unwrap()]).unwrap();
    assert!(matches!(config.backend, Backend::Embedded { .. }));
    assert!(config.state_dir.starts_with(bench.root.path().canonicalize().unwrap()));
    assert!(config.state_dir.to_str().unwrap().contains(".local/state/privicorefs/"));
    assert!(!vault.exists(), "resolving makes no vault");
}

#[test]
fn the_first_layer_that_names_a_vault_decides() {
    let bench = Bench::with_service();
    let embedded = bench.resolve(&["--embedded", "/vault"]).unwrap();
    assert!(matches!(embedded.backend, Backend::Embedded { .. }), "over an exported URL");
    bench.file("embedded = \"/vault\"\n");
    assert_eq!(bench.service(&[]).username, "from-env", "an exported URL over the file");
    let both = ["--embedded", "/vault", "--api-url", "https://x.example.com"];
    assert!(matches!(bench.resolve(&both).unwrap_err(), ConfigError::Conflict { .. }));
}

#[test]
fn what_is_missing_is_said_with_a_hint() {
    let bench = Bench::new();
    let error = bench.resolve(&[]).unwrap_err().to_string();
    assert!(error.contains("--embedded"), "{error}");
    let mut bench = Bench::with_service();
    bench.env.remove("PRIVICORE_PASSWORD");
    let error = bench.resolve(&[]).unwrap_err().to_string();
    assert!(error.contains("PRIVICORE_PASSWORD"), "{error}");
}

#[test]
fn folders_that_bite_each_other_are_refused() {
    let bench = Bench::new();
    let mnt = bench.root.path().join("mnt/state");
    let vault = ["--embedded", "/vault", "--state-dir"];
    let error = bench.resolve(&[&vault[..], &[mnt.to_str().unwrap()]].concat()).unwrap_err();
    assert!(error.to_string().contains("below the mount point"), "{error}");
    let nested = ["/c/s", "--cache-dir", "/c"];
    let error = bench.resolve(&[&vault[..], &nested[..]].concat()).unwrap_err();
    assert!(error.to_string().contains("cache folder"), "{error}");
}

#[test]
fn values_out_of_bounds_are_refused() {
    let bench = Bench::new();
    for flags in
        [["--part-size", "1"], ["--memory", "1MiB"], ["--parallel", "0"], ["--deadline", "0"]]
    {
        let flags = [&["--embedded", "/vault"][..], &flags[..]].concat();
        let error = bench.resolve(&flags).unwrap_err();
        assert!(matches!(error, ConfigError::Invalid { .. }), "{error}");
    }
}

#[test]
fn urls_must_be_of_their_kind_and_hold_no_login() {
    let bench = Bench::with_service();
    for flags in [["--api-url", "ftp://x"], ["--ws-url", "https://x"], ["--api-url", "x"]] {
        assert!(matches!(bench.resolve(&flags).unwrap_err(), ConfigError::Invalid { .. }));
    }
    let error = bench.resolve(&["--api-url", "https://me:hunter2@x"]).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn switches_can_be_turned_off_again() {
    let bench = Bench::new();
    bench.file("embedded = \"/vault\"\nread_only = true\n");
    assert!(bench.resolve(&[]).unwrap().read_only);
    assert!(!bench.resolve(&["--read-only=false"]).unwrap().read_only);
    assert!(bench.resolve(&["--allow-other"]).unwrap().allow_other);
    assert!(!bench.resolve(&[]).unwrap().register_directories);
    assert!(bench.resolve(&["--register-directories"]).unwrap().register_directories);
}

#[test]
fn every_option_may_stand_in_the_file() {
    let bench = Bench::new();
    bench.file(
        "embedded = \"/vault\"\nstate_dir = \"/s\"\ncache_dir = \"/c\"\ncache_size = 1073741824\n\
         cache_free_floor = \"1MiB\"\nstaging_limit = \"2GiB\"\nmemory = \"64MiB\"\n\
         split_above = \"never\"\npart_size = \"1MiB\"\ndurability = \"close\"\ntrash_days = 0\n\
         local_names = [\"*.tmp\"]\nparallel = 2\npoll_interval = 0\ndeadline = 5\n\
         approval_timeout = 7\nmachine_name = \"den\"\n\
         drain_timeout = 6\nregister_directories = true\nallow_other = true\nread_only = true\nlog_level = \"debug\"\n\
         session_store = \"file\"\n[directory.calls]\nregister = \"PUT /v2\"\n",
    );
    let config = bench.resolve(&[]).unwrap();
    assert_eq!(config.state_dir, Path::new("/s"));
    assert_eq!(config.tuning.split_above, None);
    assert_eq!(config.tuning.cache_limit, 1 << 30);
    assert_eq!(config.tuning.durability, Durability::Close);
    assert_eq!(config.tuning.local_names, ["*.tmp"]);
    assert!(config.tuning.poll_interval.is_zero());
    assert_eq!(config.tuning.machine_name.as_deref(), Some("den"));
    assert!(config.register_directories && config.read_only);
}
