//! TLS at the edge and the PROXY protocol, with openssl, curl, HAProxy and nginx at the other end.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{Node, attempt, client, eventually, said, springtide};

const SOON: Duration = Duration::from_secs(20);

/// An authority, with a folder for what it issues.
struct Authority {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// The authority is in `{name}.pem`.
    fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Self { dir: dir.into(), issuer }
    }

    /// A certificate for `name`, in `{tag}.pem` and `{tag}.key`.
    fn issue(&self, tag: &str, name: &str) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, tag);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.dir.join(format!("{tag}.pem")), certificate.pem()).unwrap();
        fs::write(self.dir.join(format!("{tag}.key")), key.serialize_pem()).unwrap();
    }
}

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn start(dir: &Path, program: &str, args: &[&str], address: SocketAddr) -> Self {
        let log = fs::File::create(dir.join(format!("{program}-{}.out", address.port()))).unwrap();
        let run = Command::new(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let running =
            Self(run.unwrap_or_else(|e| panic!("{program} is not here ({e}); `bash tests/run.sh` installs it")));
        eventually(program, SOON, || TcpStream::connect(address).ok());
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], crate::peers::free_port()))
}

/// A node `name` whose configuration has `rest` below its head.
fn node(dir: &Path, name: &str, rest: &str) -> Node {
    Node::start(&write(dir, name, rest))
}

fn write(dir: &Path, name: &str, rest: &str) -> PathBuf {
    let path = dir.join(format!("{name}.toml"));
    let head = format!(
        "[node]\nname = \"{name}\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[datacenter]]\nname = \"here\"\n"
    );
    fs::write(&path, format!("{head}{rest}")).unwrap();
    path
}

fn metrics(node: &Node) -> String {
    client("curl", &["-sS", "-m", "5", &format!("http://{}/metrics", node.admin())])
}

#[test]
fn openssl_resumes_at_any_node_of_a_fleet() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new(dir.path(), "ca").issue("www", "www.test");
    let file = dir.path().join("tickets");
    let rotate = || {
        let made = springtide(&["keys", "tickets", file.to_str().unwrap()]);
        assert!(made.status.success(), "{}", said(&made));
    };
    rotate();
    let rest = "[[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n\
                tls = { certs = \"www.pem\", keys = \"www.key\", tickets = { file = \"tickets\" } }\n\
                [[route]]\nrespond = { body = \"ok\" }\n";
    let (one, two) = (node(dir.path(), "one", rest), node(dir.path(), "two", rest));
    let shake = |node: &Node, version: &str, args: &[&str]| {
        let address = node.http("public").to_string();
        let all = [&["s_client", "-connect", &address, "-servername", "www.test", version], args].concat();
        said(&attempt("openssl", &all))
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let session = dir.path().join(format!("session{version}"));
        let session = session.to_str().unwrap();
        // Without input it ends at once, with or without the ticket that comes behind the handshake.
        eventually("a session is kept", SOON, || {
            let first = shake(&one, version, &["-sess_out", session]);
            assert!(first.contains("New, TLSv1"), "{first}");
            Path::new(session).exists().then_some(())
        });
        for node in [&one, &two] {
            let again = shake(node, version, &["-sess_in", session]);
            assert!(again.contains("Reused, TLSv1"), "{version}: {again}");
        }
    }
    let kept = dir.path().join("session-tls1_2");
    let kept = kept.to_str().unwrap();
    // One node has rotated, the other has not: each opens what the other seals.
    rotate();
    one.signal("HUP");
    eventually("the reload", SOON, || one.log().contains("the new configuration is in force").then_some(()));
    assert!(shake(&one, "-tls1_2", &["-sess_in", kept]).contains("Reused"), "sealed before the rotation");
    let fresh = dir.path().join("fresh");
    shake(&one, "-tls1_2", &["-sess_out", fresh.to_str().unwrap()]);
    assert!(shake(&two, "-tls1_2", &["-sess_in", fresh.to_str().unwrap()]).contains("Reused"), "sealed after it");
    let counted = metrics(&one);
    for label in ["version=\"1.2\",how=\"resumed\"", "version=\"1.3\",how=\"resumed\"", "version=\"1.3\",how=\"full\""]
    {
        assert!(counted.contains(&format!("springtide_proxy_handshakes_total{{{label}}}")), "{label} in {counted}");
    }
    // A broken file is refused and named; what was in force stays.
    fs::write(&file, "nonsense\n").unwrap();
    one.signal("HUP");
    eventually("the refusal is logged", SOON, || one.log().contains("line 1 is no key").then_some(()));
    assert!(shake(&one, "-tls1_2", &["-sess_in", fresh.to_str().unwrap()]).contains("Reused"));
}

#[test]
fn openssl_is_refused_below_the_oldest_version_and_curl_is_sent_to_https() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new(dir.path(), "ca").issue("www", "www.test");
    let rest = "[[listener]]\nname = \"strict\"\nlisten = \"127.0.0.1:0\"\n\
                tls = { certs = \"www.pem\", keys = \"www.key\", min_version = \"1.3\" }\n\
                [[listener]]\nname = \"plain\"\nlisten = \"127.0.0.1:0\"\nredirect = { scheme = \"https\", status = 308 }\n\
                [[route]]\nrespond = { body = \"ok\" }\n";
    let node = node(dir.path(), "n1", rest);
    let strict = node.http("strict").to_string();
    let shake = |version: &str| said(&attempt("openssl", &["s_client", "-connect", &strict, version]));
    assert!(shake("-tls1_3").contains("New, TLSv1.3"), "{}", shake("-tls1_3"));
    assert!(shake("-tls1_2").contains("alert protocol version"), "{}", shake("-tls1_2"));
    let url = format!("http://{}/a?b=c", node.http("plain"));
    let sent = client(
        "curl",
        &["-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", "host: www.test", &url],
    );
    assert_eq!(sent, "308 https://www.test/a?b=c");
}

/// HAProxy with this section of its own.
fn haproxy(dir: &Path, address: SocketAddr, section: &str) -> Running {
    let text = format!(
        "global\n  log stderr local0\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n{section}"
    );
    let path = dir.join(format!("haproxy-{}.cfg", address.port()));
    fs::write(&path, text).unwrap();
    Running::start(dir, "haproxy", &["-db", "-f", path.to_str().unwrap()], address)
}

#[test]
fn haproxy_introduces_its_clients_to_us_and_we_ours_to_it() {
    let dir = tempfile::tempdir().unwrap();
    for version in ["v1", "v2"] {
        let behind = free();
        // Answers with the client that it was told of; only a PROXY header gets that far.
        let section = format!(
            "frontend in\n  bind {behind} accept-proxy\n  http-request return status 200 content-type text/plain lf-string \"%[src]\"\n"
        );
        let _behind = haproxy(dir.path(), behind, &section);
        let rest = format!(
            "[[service]]\nname = \"web\"\nprobe = {{ http = \"/healthz\", interval = \"200ms\", timeout = \"200ms\" }}\n\
             proxy_protocol = \"{version}\"\nbackends.here = [\"{behind}\"]\n\
             [[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]\n\
             [[route]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"web\"\n"
        );
        let node = node(dir.path(), &format!("edge-{version}"), &rest);
        let (front, public) = (free(), node.http("public"));
        let send = if version == "v1" { "send-proxy" } else { "send-proxy-v2 proxy-v2-options crc32c" };
        let section = format!("listen in\n  bind {front}\n  server edge {public} {send}\n");
        let _front = haproxy(dir.path(), front, &section);
        for address in ["127.0.0.5", "127.0.0.6", "127.0.0.5"] {
            let url = format!("http://{front}/");
            let told = client("curl", &["-sS", "-m", "10", "--interface", address, &url]);
            assert_eq!(told, address, "{version}");
        }
        eventually("the probes are answered", SOON, || {
            let ok = "springtide_control_probes_total{kind=\"http\",outcome=\"ok\"}";
            metrics(&node).contains(ok).then_some(())
        });
        // Who comes without a header from a prefix that has to send one is closed, not served.
        let direct = attempt("curl", &["-sS", "-m", "10", &format!("http://{public}/")]);
        assert!(!direct.status.success(), "{}", said(&direct));
    }
}

#[test]
fn curl_shows_who_it_is_and_the_backend_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, staff) = (Authority::new(dir.path(), "ca"), Authority::new(dir.path(), "staff"));
    ca.issue("www", "www.test");
    staff.issue("ops", "ops.staff.test");
    staff.issue("guest", "guest.test");
    ca.issue("stranger", "ops.staff.test");
    let behind = free();
    let section = format!(
        "frontend in\n  bind {behind}\n  http-request return status 200 content-type text/plain lf-string \"%[req.hdr(x-client-cert-subject)] %[req.hdr(x-client-cert-san)] %[req.fhdr(client-cert)]\"\n"
    );
    let _behind = haproxy(dir.path(), behind, &section);
    let rest = format!(
        "[[service]]\nname = \"web\"\nbackends.here = [\"{behind}\"]\n\
         [[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n\
         tls = {{ certs = \"www.pem\", keys = \"www.key\", client_ca = \"staff.pem\", client_certificate = \"request\" }}\n\
         [[route]]\nname = \"staff\"\nmatch = {{ path_prefix = \"/staff\" }}\n\
         require = {{ client_certificate = {{ san = [\"*.staff.test\"] }} }}\nservice = \"web\"\n\
         [[route]]\nname = \"all\"\nmatch = {{ path_prefix = \"/\" }}\nservice = \"web\"\n"
    );
    let node = node(dir.path(), "n1", &rest);
    let port = node.http("public").port();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let ask = |who: Option<&str>, path: &str| {
        let (authority, resolve) = (file("ca.pem"), format!("www.test:{port}:127.0.0.1"));
        let url = format!("https://www.test:{port}{path}");
        let mut args = vec!["-sS", "-m", "10", "--cacert", &authority, "--resolve", &resolve, "-w", "\n%{http_code}"];
        let (cert, key) = (who.map(|w| file(&format!("{w}.pem"))), who.map(|w| file(&format!("{w}.key"))));
        if let (Some(cert), Some(key)) = (&cert, &key) {
            args.extend(["--cert", cert, "--key", key]);
        }
        args.extend(["-H", "x-client-cert-subject: CN=forged", &url]);
        said(&attempt("curl", &args))
    };
    for (who, path, says) in [
        (None, "/staff", "certificate_required"),
        (None, "/", "  \n200"),
        (Some("guest"), "/staff", "certificate_required"),
        (Some("guest"), "/", "CN=guest \"DNS:guest.test\" \n200"),
        (Some("ops"), "/staff", "CN=ops \"DNS:ops.staff.test\" \n200"),
    ] {
        let heard = ask(who, path);
        assert!(heard.contains(says), "{who:?} {path}: {heard}");
    }
    // Cut in the handshake: curl tells of the alert, or of a connection that is gone already.
    assert!(ask(Some("stranger"), "/").contains("000"), "a stranger has come in");
    let counted = metrics(&node);
    for outcome in ["verified", "none", "refused"] {
        let name = format!("springtide_proxy_client_certificates_total{{outcome=\"{outcome}\"}}");
        assert!(counted.lines().any(|l| l.starts_with(&name) && !l.ends_with(" 0")), "{name} in {counted}");
    }
    eventually("refusals are counted", SOON, || {
        metrics(&node)
            .contains("springtide_proxy_refused_total{route=\"staff\",reason=\"certificate_required\"} 2")
            .then_some(())
    });
    let admin = node.admin().to_string();
    let explained = springtide(&["explain", "http", "https://www.test/staff", "--admin", &admin, "--json"]);
    assert!(said(&explained).contains("*.staff.test"), "{}", said(&explained));
}

#[test]
fn nginx_and_openssl_are_shown_who_we_are() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path(), "ca");
    ca.issue("backend", "backend.test");
    ca.issue("edge", "edge.test");
    let (nginx, openssl) = (free(), free());
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log nginx.log info;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n  access_log off; client_body_temp_path body; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
           server {{ listen {nginx} ssl; ssl_certificate backend.pem; ssl_certificate_key backend.key;\n\
             ssl_client_certificate ca.pem; ssl_verify_client on;\n\
             location / {{ return 200 \"$ssl_client_s_dn\"; }} }}\n}}\n"
    );
    fs::write(dir.path().join("nginx.conf"), text).unwrap();
    let prefix = format!("{}/", dir.path().display());
    let conf = dir.path().join("nginx.conf");
    let _nginx =
        Running::start(dir.path(), "nginx", &["-p", &prefix, "-e", "nginx.log", "-c", conf.to_str().unwrap()], nginx);
    let accept = openssl.port().to_string();
    let args = [
        "s_server",
        "-accept",
        &accept,
        "-cert",
        "backend.pem",
        "-key",
        "backend.key",
        "-CAfile",
        "ca.pem",
        "-Verify",
        "2",
        "-verify_return_error",
        "-www",
    ];
    let _openssl = Running::start(dir.path(), "openssl", &args, openssl);
    let service = |name: &str, at: SocketAddr, own: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nretry = {{ tries = 1 }}\nbackends.here = [\"{at}\"]\n\
             tls = {{ name = \"backend.test\", ca = \"ca.pem\"{own} }}\n\
             [[route]]\nmatch = {{ path_prefix = \"/{name}\" }}\nservice = \"{name}\"\n"
        )
    };
    let own = ", certificate = \"edge.pem\", key = \"edge.key\"";
    let rest = [
        "[[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n".to_owned(),
        service("nginx", nginx, own),
        service("openssl", openssl, own),
        service("nobody", nginx, ""),
    ];
    let node = node(dir.path(), "n1", &rest.concat());
    let public = node.http("public");
    let ask =
        |path: &str| client("curl", &["-sS", "-m", "10", "-w", "\n%{http_code}", &format!("http://{public}{path}")]);
    assert_eq!(ask("/nginx"), "CN=edge\n200");
    let shown = ask("/openssl");
    assert!(shown.contains("Subject: CN=edge") && shown.ends_with("200"), "{shown}");
    assert!(ask("/nobody").ends_with("\n400"), "nginx wants one: {}", ask("/nobody"));
    // Another certificate takes its place with a reload, for connections that are made after it.
    let mut params = CertificateParams::new(vec!["edge.test".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "renewed");
    let key = KeyPair::generate().unwrap();
    fs::write(dir.path().join("edge.pem"), params.signed_by(&key, &ca.issuer).unwrap().pem()).unwrap();
    fs::write(dir.path().join("edge.key"), key.serialize_pem()).unwrap();
    node.signal("HUP");
    eventually("openssl, which closes each connection, sees the new one", SOON, || {
        ask("/openssl").contains("CN=renewed").then_some(())
    });
    fs::write(dir.path().join("edge.key"), "nonsense").unwrap();
    node.signal("HUP");
    eventually("the refusal is logged", SOON, || node.log().contains("edge.key: no private key in it").then_some(()));
}
