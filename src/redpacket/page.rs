//! The page for telephones as it lies in `www/`, for those who have the program and not the folder.

use std::path::Path;
use std::{fs, io};

/// Its files.
const FILES: [(&str, &str); 10] = [
    ("index.html", include_str!("../../www/index.html")),
    ("page.css", include_str!("../../www/page.css")),
    ("icon.svg", include_str!("../../www/icon.svg")),
    ("page.js", include_str!("../../www/page.js")),
    ("here.js", include_str!("../../www/here.js")),
    ("call.js", include_str!("../../www/call.js")),
    ("gifts.js", include_str!("../../www/gifts.js")),
    ("orders.js", include_str!("../../www/orders.js")),
    ("packet.js", include_str!("../../www/packet.js")),
    ("words.js", include_str!("../../www/words.js")),
];

/// Writes the page into `folder`, which is made where there is none.
///
/// # Errors
/// The system refuses.
pub fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    FILES.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_whole_folder() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let names = |path: &Path| {
            let mut all: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            all.sort();
            all
        };
        assert_eq!(names(dir.path()), names(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www"))));
    }
}
