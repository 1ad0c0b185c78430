//! A small file system of its own on a loop device, for tests that fill it or cut its power.

use std::fs::{self, File};
use std::process::Command;

/// What shuts an ext4 down at once, without its journal: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\nfcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

/// Runs a command; what it says if it fails.
fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(command).args(arguments).output().map_err(|error| format!("{command}: {error}"))?;
    output.status.success().then_some(()).ok_or_else(|| format!("{command}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A mounted image; it is unmounted when it is dropped.
pub struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    /// A new ext4 of so many MiB, mounted; an error where there are no loop devices.
    pub fn new(mebibytes: u64) -> Result<Self, String> {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        let file = image.path("image");
        File::create(&file).and_then(|file| file.set_len(mebibytes << 20)).map_err(|error| error.to_string())?;
        fs::create_dir(image.path("mounted")).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &file])?;
        image.mount()?;
        Ok(image)
    }

    /// A path in its folder: `mounted` is the file system.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.path("image"), &self.path("mounted")])
    }

    pub fn unmount(&self) -> Result<(), String> {
        run("umount", &[&self.path("mounted")])
    }

    /// Whether there is what [`Image::cut`] needs.
    pub fn can_be_cut(&self) -> Result<(), String> {
        run("python3", &["--version"])
    }

    /// The power goes.
    pub fn cut(&self) -> Result<(), String> {
        run("python3", &["-c", SHUTDOWN, &self.path("mounted")])
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}
