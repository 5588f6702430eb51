//! What to start to have this process again: a path and its arguments, as they were when it started.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    /// By what name it calls itself.
    name: OsString,
    args: Vec<OsString>,
}

impl Program {
    /// The one that runs. The path is the one by which it was called, links and all: an update may move a link. To be called
    /// before the working directory changes.
    pub fn of_this_process() -> Option<Self> {
        let mut args = std::env::args_os();
        let name = args.next()?;
        let folder = std::env::current_dir().ok()?;
        let path = find(&name, &folder, &std::env::var_os("PATH").unwrap_or_default())
            .or_else(|| std::env::current_exe().ok())?;
        Some(Self { path, name, args: args.collect() })
    }

    /// Where it stands.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn command(&self) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.args);
        command
    }
}

/// The file that `name` stands for when it is called in `folder`, with the search path `places`.
fn find(name: &OsStr, folder: &Path, places: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if Path::new(name).components().count() > 1 {
        return Some(folder.join(name)).filter(is_program);
    }
    std::env::split_paths(places).map(|place| folder.join(place).join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, real) = (dir.path().join("bin"), dir.path().join("v1"));
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(&real, "").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink(&real, bin.join("tide")).unwrap();
        let find = |name: &str, places: &Path| find(name.as_ref(), dir.path(), places.as_os_str());
        assert_eq!(find("tide", &bin), Some(bin.join("tide")));
        assert_eq!(find("./bin/tide", Path::new("")), Some(dir.path().join("./bin/tide")));
        assert_eq!(find("tide", Path::new("/nowhere")), None);
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find("tide", &bin), None, "no program");
    }
}
