//! Key folders as operators leave them.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::dns::sign::generate;
use crate::wire::dnssec::{Algorithm, SEP, ZONE_KEY};

const ZONE: &[u8] = b"\x01z\0";

fn made(folder: &Path, flags: u16, algorithm: Algorithm) -> (Key, PathBuf) {
    let times = Times { created: Some(5), publish: Some(6), ..Times::default() };
    let key = generate(ZONE.into(), flags, algorithm, times).unwrap();
    let path = store(&key, folder).unwrap();
    (key, path)
}

fn said(folder: &Path) -> String {
    load(ZONE, folder).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn what_is_stored_is_loaded_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let (csk, path) = made(folder.path(), ZONE_KEY | SEP, Algorithm::EcdsaP256);
    let (zsk, _) = made(folder.path(), ZONE_KEY, Algorithm::Ed25519);
    // Keys of other zones do not count.
    fs::write(folder.path().join("Kzz.+013+00001.key"), "nonsense").unwrap();
    let (mut keys, warnings) = load(ZONE, folder.path()).unwrap();
    keys.sort_by_key(|k| k.public.flags != csk.public.flags);
    assert_eq!((keys, warnings.len()), (vec![csk.clone(), zsk], 0));
    let private = path.with_extension("x").with_file_name(format!("{}.private", csk.public.stem()));
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
    // A second store changes the times and leaves nothing behind.
    let mut later = csk;
    later.private.times.inactive = Some(9);
    store(&later, folder.path()).unwrap();
    assert!(load(ZONE, folder.path()).unwrap().0.contains(&later));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).unwrap();
    let (_, warnings) = load(ZONE, folder.path()).unwrap();
    assert!(warnings[0].to_string().contains("(mode 644): run `chmod 600` on it"), "{}", warnings[0]);
}

#[test]
fn what_is_wrong_names_the_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    assert!(said(folder.path()).contains("make one with `springtide keys make z. --dir"));
    assert!(said(&folder.path().join("none")).contains("cannot be read"));
    let (_, zsk) = made(folder.path(), ZONE_KEY, Algorithm::EcdsaP256);
    assert!(said(folder.path()).contains("none of the keys has the flags 257"));
    let (_, csk) = made(folder.path(), ZONE_KEY | SEP, Algorithm::EcdsaP256);
    let end = |stem: &Path, end: &str| PathBuf::from(format!("{}.{end}", stem.display()));
    let (ours, other) = (end(&csk, "private"), end(&zsk, "private"));
    let whole = fs::read(&ours).unwrap();
    fs::copy(&other, &ours).unwrap();
    assert!(said(folder.path()).contains("does not belong to the public one"));
    fs::write(&ours, &whole[..whole.len() / 2]).unwrap();
    let cut = said(folder.path());
    assert!(cut.starts_with("zone z. cannot be signed:\n  ") && cut.contains(".private: "), "{cut}");
    fs::write(&ours, vec![b'x'; 20_000]).unwrap();
    assert!(said(folder.path()).contains("this is no key"));
    fs::remove_file(&ours).unwrap();
    assert!(said(folder.path()).contains(".private: cannot be read"));
    fs::write(&ours, whole).unwrap();
    fs::rename(end(&zsk, "key"), folder.path().join("Kz.+013+00000.key")).unwrap();
    assert!(said(folder.path()).contains("give the files back their names"));
    fs::remove_file(folder.path().join("Kz.+013+00000.key")).unwrap();
    for _ in 0..MAX_KEYS {
        made(folder.path(), ZONE_KEY, Algorithm::Ed25519);
    }
    assert!(said(folder.path()).contains("more than 16 keys"));
}

#[test]
fn a_zone_with_a_slash_in_its_name_has_its_files_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let zone = name::parse("0/25.2.0.192.in-addr.arpa.", None).unwrap();
    let key = generate(zone.clone().into(), ZONE_KEY | SEP, Algorithm::Ed25519, Times::default()).unwrap();
    let path = store(&key, folder.path()).unwrap();
    assert!(path.starts_with(folder.path().join(key.public.stem())) && key.public.stem().starts_with("K0%2F25."));
    assert_eq!(load(&zone, folder.path()).unwrap().0, [key]);
    let other = load(b"\x041/25\0", folder.path()).unwrap_err().to_string();
    assert!(other.contains("no key of 1/25. (K1%2F25.+013+*.key) is here"), "{other}");
}

#[test]
fn states_follow_the_times() {
    let times =
        Times { publish: Some(10), activate: Some(20), inactive: Some(30), delete: Some(40), ..Times::default() };
    let states = [0, 10, 20, 30, 40].map(|now| State::of(&times, now).as_str());
    assert_eq!(states, ["future", "published", "active", "retired", "gone"]);
    assert_eq!(State::of(&Times::default(), 0), State::Active);
    assert_eq!(when(0), "1970-01-01 00:00:00 UTC");
}
