//! Files on disk, read as a start reads them: what they mean, and what is wrong with them.

use std::fs;
use std::net::IpAddr;

use tempfile::TempDir;

use super::*;
use crate::config::{Datacenter, Geo};
use crate::decide::near::{Near, hits};
use crate::wire::mmdb::writer::{self, asn, city, country, write};

/// A configuration with these files and datacenters.
fn config(folder: &TempDir, databases: &[&str], lists: &[&str], near: &[(&str, &[Locality])]) -> Config {
    let paths = |names: &[&str]| names.iter().map(|name| folder.path().join(name)).collect();
    let datacenter = |(name, near): &(&str, &[Locality])| Datacenter {
        name: (*name).to_owned(),
        weight: 1,
        addresses: Vec::new(),
        near: near.to_vec(),
        capacity_rps: None,
    };
    Config {
        geo: Geo { databases: paths(databases), cidr: paths(lists), poll: None },
        datacenters: near.iter().map(datacenter).collect(),
        ..Config::default()
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let net = |n: &str| n.parse().unwrap();
    let put = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
    let countries = [
        (net("10.0.0.0/8"), country("AS", "CN")),
        (net("10.64.0.0/10"), country("EU", "DE")),
        (net("2001:db8::/32"), country("AS", "CN")),
    ];
    put("country.mmdb", write("Test-Country", true, 24, &countries));
    put(
        "city.mmdb",
        write("Test-City", false, 28, &[(net("10.8.0.0/16"), city("AS", "CN", "GD", "Shenzhen", 1_795_565))]),
    );
    put("asn.mmdb", write("Test-ASN", true, 32, &[(net("10.0.0.0/16"), asn(4_134))]));
    put("map.txt", b"10.0.9.0/24\toffice # here\n10.0.0.0/20 lab,office\n10.0.10.0/24 other\n".to_vec());
    folder
}

fn class(name: &str) -> Locality {
    Locality::Class(name.into())
}

fn land(code: &str) -> Locality {
    Locality::Country(code.into())
}

fn errors(config: &Config, folder: &TempDir) -> Vec<String> {
    let here = folder.path().display().to_string() + "/";
    load(config).unwrap_err().iter().map(|e| e.to_string().replace(&here, "")).collect()
}

#[test]
fn all_files_together_say_who_is_near() {
    let folder = folder();
    let (sz, sh, tj) = (
        [class("office"), Locality::City("shenzhen".into())],
        [Locality::Asn(4_134), Locality::Subdivision("CN-GD".into()), land("DE")],
        [land("CN")],
    );
    let near: [(&str, &[Locality]); 3] = [("sz", &sz), ("sh", &sh), ("tj", &tj)];
    let config = config(&folder, &["country.mmdb", "city.mmdb", "asn.mmdb"], &["map.txt"], &near);
    let (atlas, doubts) = load(&config).unwrap();
    let here = folder.path().join("map.txt");
    assert_eq!(doubts, [Doubt::Unused { file: here, classes: vec!["lab".into(), "other".into()] }]);
    assert_eq!(atlas.sources.iter().map(|s| s.networks).take(1).collect::<Vec<_>>(), [3]);
    let localities: Vec<&[Locality]> = near.iter().map(|(_, near)| *near).collect();
    let map = Near::build(&localities, &atlas);
    let who = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        let set = map.find(address).0.map(<[bool]>::to_vec);
        let said: Vec<String> =
            hits(&localities, &atlas, address).iter().filter(|h| h.counts).map(|h| h.locality.to_string()).collect();
        (
            set.map(|set| {
                near.iter().zip(set).filter(|(_, near)| *near).map(|(dc, _)| dc.0).collect::<Vec<_>>().join("+")
            }),
            said.join(" "),
        )
    };
    let some = |dc: &str, why: &str| (Some(dc.to_owned()), why.to_owned());
    assert_eq!(who("10.0.9.1"), some("sz", "class:office"));
    assert_eq!(who("10.0.1.1"), some("sz", "class:office"));
    assert_eq!(who("10.0.10.1"), some("sh", "asn:4134"), "of a class that nobody asks for: no longer `office`");
    assert_eq!(who("10.0.200.1"), some("sh", "asn:4134"));
    assert_eq!(who("10.8.1.1"), some("sz", "city:shenzhen"));
    assert_eq!(who("10.70.1.1"), some("sh", "country:DE"));
    assert_eq!(who("10.9.1.1"), some("tj", "country:CN"));
    assert_eq!(who("2001:db8::1"), some("tj", "country:CN"));
    assert_eq!(who("192.0.2.1"), (None, String::new()));
}

#[test]
fn what_is_asked_and_nobody_knows_is_said() {
    let folder = folder();
    let asked = [class("ofice"), Locality::Asn(1), Locality::CityId(7), land("CN"), land("FR")];
    let near: [(&str, &[Locality]); 1] = [("sz", &asked)];
    assert_eq!(
        errors(&config(&folder, &["country.mmdb"], &["map.txt"], &near), &folder),
        [
            "datacenter `sz` is near to `class:ofice`, but no list of `[geo] cidr` has this class",
            "datacenter `sz` is near to `asn:1`, but no database of `[geo]` knows autonomous systems: add one such as GeoLite2-ASN",
            "datacenter `sz` is near to `city:7`, but no database of `[geo]` knows cities and subdivisions: add one such as GeoLite2-City",
        ]
    );
    let (_, doubts) = load(&config(&folder, &["country.mmdb"], &[], &[("sz", &[land("CN"), land("FR")])])).unwrap();
    assert_eq!(
        doubts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["datacenter `sz` is near to `country:FR`, but no network is there"]
    );
}

#[test]
fn every_file_that_is_wrong_is_said_at_once() {
    let folder = folder();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let whole = fs::read(folder.path().join("country.mmdb")).unwrap();
    put("cut.mmdb", &whole[..whole.len() / 2]);
    put("text.mmdb", b"10.0.0.0/8 cn\n");
    put(
        "odd.mmdb",
        &write("Test-ISP", true, 24, &[("10.0.0.0/8".parse().unwrap(), writer::map([("isp", writer::text("x"))]))]),
    );
    put("bad.txt", b"10.0.0.0/8\tcn\n10.0.0.1/8\tcn\n10.0.0.0/8\tde\n");
    put("latin.txt", b"10.0.0.0/8\tcn\n# caf\xe9\n");
    let said = errors(
        &config(&folder, &["cut.mmdb", "none.mmdb", "odd.mmdb", "text.mmdb"], &["bad.txt", "latin.txt"], &[]),
        &folder,
    );
    assert_eq!(
        said,
        [
            "bad.txt:2: 10.0.0.1/8 has bits beyond its length: did you mean 10.0.0.0/8?",
            "bad.txt:3: 10.0.0.0/8 stands twice, first in line 1",
            "latin.txt: line 2 is not UTF-8",
            "cut.mmdb: this is no MaxMind DB file, or its end is missing",
            "none.mmdb: cannot be read: No such file or directory (os error 2)",
            "odd.mmdb: this database (`Test-ISP`) knows neither places nor autonomous systems: expected one such as \
             GeoLite2-Country, GeoLite2-City or GeoLite2-ASN",
            "text.mmdb: this is no MaxMind DB file, or its end is missing",
        ]
    );
}
