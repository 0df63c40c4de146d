//! Finding NVIDIA's libraries and their functions. A missing library or function results in an error message.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::{Path, PathBuf};

/// The library folder of a CUDA installation.
const INSTALLED: &str = "/usr/local/cuda/lib64";

/// A library, which stays open as long as the process, and its file.
#[derive(Debug)]
pub(in crate::gpu) struct Opened {
    /// The library.
    pub library: Library,
    /// Its file, or its name if the file cannot be determined.
    pub path: PathBuf,
}

/// Opens the first library found under one of these names, which are listed newest first. If PERISTYLE_LIBRARIES is
/// set, only its folders are searched; otherwise the loader's path (LD_LIBRARY_PATH), the wheels of the Python
/// environment that is active or first on PATH, and /usr/local/cuda.
pub(in crate::gpu) fn open(names: &[&str]) -> Result<Opened, String> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    let inside = |folders: Vec<PathBuf>| -> Vec<PathBuf> {
        let files = folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
        files.filter(|file| file.is_file()).collect()
    };
    let given = std::env::var_os("PERISTYLE_LIBRARIES").filter(|value| !value.is_empty());
    let looked = if let Some(given) = given {
        candidates.extend(inside(std::env::split_paths(&given).collect()));
        format!("in PERISTYLE_LIBRARIES = {}", given.display())
    } else {
        candidates.extend(names.iter().map(PathBuf::from));
        candidates.extend(inside(wheels()));
        candidates.extend(inside(vec![INSTALLED.into()]));
        "through LD_LIBRARY_PATH, in the wheels of VIRTUAL_ENV or of the python3 on PATH, or in /usr/local/cuda"
            .to_string()
    };
    let mut refused = None;
    for path in candidates {
        // Global, because cuDNN loads cuBLASLt by name. A name without a folder is resolved by the loader.
        // SAFETY: NVIDIA's libraries may be initialised at any time, from any thread.
        match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                let path = if path.is_absolute() { path } else { loaded(&path).unwrap_or(path) };
                return Ok(Opened { library, path });
            }
            // For a name without a folder, the loader only reports that there is no such library.
            Err(error) if path.is_absolute() => refused = Some(format!("{error}")),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| format!("{} was not found {looked}", names.join(" or "))))
}

/// Returns the active Python environment, or else that of the first python3 on PATH, if it is one.
fn environment() -> Option<PathBuf> {
    let active = std::env::var_os("VIRTUAL_ENV").filter(|value| !value.is_empty()).map(PathBuf::from);
    active.or_else(|| {
        let path = std::env::var_os("PATH")?;
        let python = std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.is_file())?;
        let home = python.parent()?.parent()?.to_path_buf();
        home.join("pyvenv.cfg").is_file().then_some(home)
    })
}

/// Returns the library folders of NVIDIA's wheels in the Python environment.
fn wheels() -> Vec<PathBuf> {
    let Some(environment) = environment() else { return Vec::new() };
    let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let pythons = entries(Path::new(&environment).join("lib"));
    let mut found: Vec<PathBuf> = pythons
        .flat_map(|python| entries(python.join("site-packages/nvidia")))
        .map(|wheel| wheel.join("lib"))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Returns the file from which a library was loaded.
fn loaded(name: &Path) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let name = name.to_str()?;
    let file = |line: &str| line.find('/').map(|at| line[at..].to_string());
    let mut files = maps.lines().filter_map(file);
    files.find(|file| file.rsplit('/').next().is_some_and(|last| last.starts_with(name))).map(PathBuf::from)
}

/// Declares the functions of a library: a struct of function pointers, with a constructor that loads them.
macro_rules! functions {
    ($(#[$doc:meta])* $visibility:vis $name:ident { $($function:ident($($parameter:ty),* $(,)?) -> $result:ty;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[allow(non_snake_case, reason = "the names are those of the library")]
        $visibility struct $name { $($visibility $function: unsafe extern "C" fn($($parameter),*) -> $result,)* }

        impl $name {
            fn load(opened: &$crate::gpu::libraries::find::Opened) -> Result<Self, String> {
                Ok($name {
                    // SAFETY: the signature matches the library's header.
                    $($function: unsafe { *opened.get(stringify!($function))? },)*
                })
            }
        }
    };
}
pub(in crate::gpu) use functions;

impl Opened {
    /// Returns a function of the library.
    ///
    /// # Safety
    /// `T` is the type of a pointer to this function.
    pub unsafe fn get<T>(&self, name: &str) -> Result<libloading::os::unix::Symbol<T>, String> {
        // SAFETY: the caller vouches for the type.
        let found = unsafe { self.library.get(name) };
        found.map_err(|_| format!("{} has no function {name}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_or_function_is_named() {
        let said = open(&["libnothing.so.13", "libnothing.so.12"]).unwrap_err();
        assert!(said.starts_with("libnothing.so.13 or libnothing.so.12 was not found"), "{said}");
        let opened = open(&["libc.so.6"]).unwrap();
        assert!(opened.path.is_absolute() && opened.path.ends_with("libc.so.6"), "{:?}", opened.path);
        // SAFETY: the function is never called.
        let said = unsafe { opened.get::<unsafe extern "C" fn()>("no_such_function") }.unwrap_err();
        assert!(said.ends_with("libc.so.6 has no function no_such_function"), "{said}");
    }
}
