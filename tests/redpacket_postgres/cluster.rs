//! A real PostgreSQL of the tests' own: made by initdb in a directory that goes away, reached over a socket in it, run by an
//! unprivileged user, and ended with the test process however that ends (its keeper reads a pipe that we hold).

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use springtide::redpacket::store::postgres::{Options, PostgresStore};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

/// Runs the server, ends it when nobody holds the pipe any more, and clears up.
const KEEPER: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses="$3" -c port="$4" -c max_connections=120 \
    -c shared_buffers=64MB -c log_min_messages=fatal >>"$2/log" 2>&1 &
server=$!
echo "$server"
cat >/dev/null
kill -CONT "$server" $(pgrep -P "$server") 2>/dev/null
kill -INT "$server" 2>/dev/null && wait "$server"
rm -rf "$2"
"#;

const SOON: Duration = Duration::from_mins(1);

/// A server and its data.
pub(crate) struct Cluster {
    dir: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    /// The keepers of all servers that ran on these data, the present one last, with the server's process id.
    keepers: Mutex<Vec<(Child, i32)>>,
    databases: AtomicU32,
}

impl Cluster {
    /// The one that the calm tests share.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        static FIRST: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _guard = FIRST.lock().await;
        if SHARED.get().is_none() {
            let cluster = Self::start().await;
            let _ = SHARED.set(cluster);
        }
        SHARED.get().unwrap()
    }

    /// A new one: for tests that are violent to it.
    pub(crate) async fn start() -> Self {
        let cluster = Self::room();
        let args = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        cluster.fill("initdb", &args);
        cluster.run().await;
        cluster
    }

    /// A standby of this one, at work: it has what this one has, and follows.
    pub(crate) async fn follow(&self) -> Self {
        let standby = Self::room();
        let (from, port) = (self.path().to_str().unwrap(), self.port.to_string());
        standby.fill("pg_basebackup", &["-h", from, "-p", &port, "-U", "postgres", "-R", "-c", "fast", "--no-sync"]);
        standby.run().await;
        standby
    }

    /// A place for a server, without data.
    fn room() -> Self {
        let programs = programs();
        let dir = tempfile::Builder::new().prefix("springtide-pg-").tempdir().unwrap();
        let user = unprivileged();
        if let Some((user, group)) = user {
            chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        Self { dir, programs, user, port: free_port(), keepers: Mutex::default(), databases: AtomicU32::new(0) }
    }

    /// Makes the data with one of the server's programs.
    fn fill(&self, program: &str, args: &[&str]) {
        let data = self.path().join("data");
        let made = self.command(self.programs.join(program)).args(args).arg("-D").arg(data).output().unwrap();
        assert!(made.status.success(), "{program}: {}", text(&made));
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file that the server alone may read.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = self.user {
            chown(&path, Some(user), Some(group)).unwrap();
        }
    }

    /// The port on 127.0.0.1, beside the socket.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Starts the server on the data that are there.
    pub(crate) async fn run(&self) {
        let mut command = self.command("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(&self.programs).arg(self.path());
        command.args(["127.0.0.1", &self.port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.keepers.lock().unwrap().push((keeper, line.trim().parse().unwrap()));
        let answers = async {
            while self.connect("postgres").await.is_none() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let log = || std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
        timeout(SOON, answers).await.unwrap_or_else(|_| panic!("the server does not come up: {}", log()));
    }

    /// The server dies at once: no checkpoint, no goodbye. It is not started again.
    pub(crate) async fn strike(&self) {
        // Its shared memory would be in the next one's way; it takes its children with it.
        self.signal("-QUIT");
        let gone = async {
            while self.path().join("data/postmaster.pid").exists() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, gone).await.expect("the server ends");
    }

    fn signal(&self, signal: &str) {
        let server = self.keepers.lock().unwrap().last().unwrap().1.to_string();
        assert!(Command::new("kill").args([signal, &server]).status().unwrap().success());
    }

    /// Stops every process of the server where it stands, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let server = self.keepers.lock().unwrap().last().unwrap().1.to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &server]).output().unwrap();
        let mut all: Vec<String> = text(&children).split_whitespace().map(str::to_owned).collect();
        all.push(server);
        // A child may end meanwhile.
        let _ = Command::new("kill").arg(signal).args(all).stderr(Stdio::null()).status().unwrap();
    }

    /// A connection to `database`; nothing while the server does not answer.
    pub(crate) async fn connect(&self, database: &str) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.ok()?;
        springtide::base::task::spawn("test-postgres", async { drop(connection.await) }).detach();
        Some(client)
    }

    /// Waits until a session of the store on `database` waits for a lock. Gives its process id.
    pub(crate) async fn waiting(&self, database: &str) -> i32 {
        let client = self.connect("postgres").await.expect("the server answers");
        let sql = "SELECT pid FROM pg_stat_activity \
                   WHERE datname = $1 AND application_name = 'springtide' AND wait_event_type = 'Lock' LIMIT 1";
        let found = async {
            loop {
                if let Some(row) = client.query_opt(sql, &[&database]).await.unwrap() {
                    return row.get(0);
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, found).await.expect("somebody waits for a lock")
    }

    /// Where `database` is, in the form of libpq.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database}", self.path().display(), self.port)
    }

    /// A new, empty database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let client = self.connect("postgres").await.expect("the server answers");
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        name
    }

    /// A store on `database`.
    pub(crate) async fn store(&self, database: &str) -> PostgresStore {
        PostgresStore::open(&Options::new(self.url(database))).await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (mut keeper, _) in std::mem::take(&mut *self.keepers.lock().unwrap()).into_iter().rev() {
            drop(keeper.stdin.take());
            // It ends its server and itself.
            let _ = keeper.wait();
        }
    }
}

/// Ends every connection to `database` but our own, and waits until they have ended: what they were committing is done or not.
pub(crate) async fn cut(cluster: &Cluster, database: &str) {
    let client = cluster.connect("postgres").await.expect("the server answers");
    let sql = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    let rows = client.query(sql, &[&database]).await.unwrap();
    let cut: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    let gone = async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)";
        while client.query_one(sql, &[&cut]).await.unwrap().get::<_, i64>(0) > 0 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, gone).await.expect("they end");
}

/// The directory of the server's programs.
fn programs() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<PathBuf> = debian.map(|e| e.path().join("bin")).collect();
    // The newest last.
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(found);
    let has = |dir: &PathBuf| ["initdb", "postgres", "pg_basebackup"].iter().all(|name| dir.join(name).exists());
    all.filter(has)
        .last()
        .expect("initdb, postgres and pg_basebackup: please install postgresql (Debian: apt-get install postgresql)")
}

/// The user that the server runs as where the tests run as root, which PostgreSQL refuses.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        Command::new("id").args(args).stderr(Stdio::null()).output().ok().and_then(|o| text(&o).trim().parse().ok())
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)))
}

/// A port that was free a moment ago, below those that the system gives to clients, so that no connection takes it meanwhile;
/// PostgreSQL cannot be told to choose.
pub(crate) fn free_port() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let first = (std::process::id() as u16 % 250) * 61;
    let mut ports = (0..4_000).map(|_| {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        8_000 + first.wrapping_add(turn) % 8_000
    });
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}
