//! Compiles kernels/*.cu: with nvcc to one fatbin each, and with a C++ compiler to the library of the emulated
//! device. Both are embedded; either may be missing. See ARCHITECTURE.md for the variables that it reads.

#[path = "build/mod.rs"]
mod kernels;

use kernels::{entries, geometry, launchers, signatures, tokens, transforms};
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The images in a fatbin: bf16 on tensor cores requires 80, and PTX alone would cost seconds of start-up.
const ARCHS: &str = "compute_75,compute_80,sm_80,sm_90";

/// A command that produces one file.
struct Job {
    /// The file that it produces, whose name contains a hash of all inputs.
    output: PathBuf,
    program: PathBuf,
    args: Vec<String>,
    /// The name of its source in messages.
    source: String,
}

/// A kernel file.
struct Source {
    stem: String,
    text: String,
    /// The text that nvcc compiles.
    gpu: String,
    /// The text that the C++ compiler compiles.
    host: String,
}

impl Source {
    /// Writes one of its two texts into OUT_DIR, and returns its path and the text that its compilation depends on.
    fn write(&self, generated: &str, suffix: &str, out: &Path) -> Result<(PathBuf, String), String> {
        let path = out.join(format!("{}.{suffix}", self.stem));
        fs::write(&path, generated).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((path, format!("{generated}{}", self.text)))
    }
}

fn variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = variable("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Returns the nvcc of NVIDIA's Python wheels inside a virtual environment.
fn in_wheels(environment: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(environment.join("lib")).ok()?;
    let mut found: Vec<PathBuf> = pythons
        .flatten()
        .flat_map(|python| fs::read_dir(python.path().join("site-packages/nvidia")).into_iter().flatten().flatten())
        .map(|toolkit| toolkit.path().join("bin/nvcc"))
        .filter(|nvcc| nvcc.is_file())
        .collect();
    found.sort();
    found.pop()
}

fn find_nvcc(root: &Path) -> Result<PathBuf, String> {
    for name in ["PERISTYLE_NVCC", "NVCC"] {
        if let Some(value) = variable(name) {
            let path = PathBuf::from(&value);
            return if path.is_file() { Ok(path) } else { Err(format!("{name} = {value} is not a file")) };
        }
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable).map(PathBuf::from);
    let homes: Vec<PathBuf> = homes.collect();
    let inside = |home: &PathBuf| Some(home.join("bin/nvcc")).filter(|nvcc| nvcc.is_file());
    homes
        .iter()
        .find_map(inside)
        .or_else(|| on_path("nvcc"))
        .or_else(|| inside(&PathBuf::from("/usr/local/cuda")))
        .or_else(|| in_wheels(Path::new(&variable("VIRTUAL_ENV")?)))
        .or_else(|| in_wheels(&root.join(".cuda")))
        .ok_or_else(|| "nvcc was not found; run scripts/cuda-toolchain.sh or set PERISTYLE_NVCC".to_string())
}

fn find_cxx() -> Result<PathBuf, String> {
    for name in ["PERISTYLE_CXX", "CXX"] {
        let Some(value) = variable(name) else { continue };
        let path = PathBuf::from(&value);
        let found = if path.is_absolute() { Some(path).filter(|p| p.is_file()) } else { on_path(&value) };
        return found.ok_or_else(|| format!("{name} = {value} was not found"));
    }
    let known = ["g++", "clang++", "c++"];
    known.iter().find_map(|name| on_path(name)).ok_or_else(|| format!("none of {} was found", known.join(", ")))
}

/// Returns the FNV-1a hash, which names outputs after their inputs.
fn hash(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0xff])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Returns the version that a compiler reports, on which its outputs depend.
fn version(compiler: &Path) -> Result<String, String> {
    let asked = Command::new(compiler).arg("--version").output();
    let answer = asked.map_err(|error| format!("{} cannot be run: {error}", compiler.display()))?;
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// Runs the jobs whose outputs do not exist yet, as many at once as cargo allows.
fn run(jobs: &[Job]) -> Result<(), String> {
    let stale: Vec<&Job> = jobs.iter().filter(|job| !job.output.is_file()).collect();
    let workers = variable("NUM_JOBS").and_then(|n| n.parse::<usize>().ok()).unwrap_or(1).min(stale.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(job) = stale.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = run_one(job) {
                        failures.lock().expect("no worker panics").push(message);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no worker panicked");
    failures.sort();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn run_one(job: &Job) -> Result<(), String> {
    // Written under another name and renamed, so that an interrupted build leaves no partial file.
    let partial = job.output.with_extension("partial");
    let done = Command::new(&job.program).args(&job.args).arg("-o").arg(&partial).output();
    let done = done.map_err(|error| format!("{} cannot be run: {error}", job.program.display()))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
        return Err(format!("{} does not compile:\n{said}", job.source));
    }
    fs::rename(&partial, &job.output).map_err(|error| format!("{}: {error}", job.output.display()))
}

/// Returns one job per kernel file: PTX and machine code in one compressed fatbin.
fn nvcc_jobs(nvcc: &Path, archs: &[&str], sources: &[Source], headers: &str, out: &Path) -> Result<Vec<Job>, String> {
    let mut args: Vec<String> =
        ["-std=c++17", "-O3", "-lineinfo", "-fatbin", "-Xfatbin", "-compress-all", "-Werror", "all-warnings"]
            .map(String::from)
            .into();
    for &arch in archs {
        let number = arch.trim_start_matches("compute_").trim_start_matches("sm_");
        if number == arch {
            return Err(format!("PERISTYLE_CUDA_ARCHS: \"{arch}\", expected names like compute_80 and sm_90"));
        }
        args.push(format!("-gencode=arch=compute_{number},code={arch}"));
    }
    let key = format!("{}{}", version(nvcc)?, args.join(" "));
    let job = |source: &Source| {
        let (path, text) = source.write(&source.gpu, "gpu.cu", out)?;
        Ok(Job {
            output: out.join(format!("{}.{}.fatbin", source.stem, hash(&[&key, headers, &text]))),
            program: nvcc.to_path_buf(),
            args: args.iter().cloned().chain([path.display().to_string()]).collect(),
            source: format!("kernels/{}.cu (nvcc)", source.stem),
        })
    };
    sources.iter().map(job).collect()
}

/// Compiles the kernels for the CPU and links them with the runtime of the emulated device.
fn emulator(
    cxx: &Path,
    sources: &[Source],
    headers: &str,
    root: &Path,
    out: &Path,
) -> Result<(PathBuf, Vec<PathBuf>), String> {
    let host = root.join("kernels/host");
    let mut args: Vec<String> =
        ["-std=c++20", "-O2", "-g1", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-w", "-c"]
            .map(String::from)
            .into();
    args.extend([format!("-I{}", host.display()), format!("-I{}", root.join("kernels").display())]);
    let key = format!("{}{}", version(cxx)?, args.join(" "));
    let job = |name: &str, path: &Path, text: &str, source: String| Job {
        output: out.join(format!("{name}.{}.o", hash(&[&key, headers, text]))),
        program: cxx.to_path_buf(),
        args: args.iter().cloned().chain([path.display().to_string()]).collect(),
        source,
    };
    let runtime = host.join("runtime.cpp");
    let text = fs::read_to_string(&runtime).map_err(|error| format!("{}: {error}", runtime.display()))?;
    let mut jobs = vec![job("runtime", &runtime, &text, "kernels/host/runtime.cpp".to_string())];
    for source in sources {
        let (path, text) = source.write(&source.host, "host.cpp", out)?;
        jobs.push(job(&source.stem, &path, &text, format!("kernels/{}.cu ({})", source.stem, cxx.display())));
    }
    run(&jobs)?;
    let objects: Vec<String> = jobs.iter().map(|job| job.output.display().to_string()).collect();
    // The library must load on machines with a different C++ runtime, or none.
    let flags = ["-shared", "-static-libstdc++", "-static-libgcc", "-Wl,--strip-debug"].map(String::from);
    let names: Vec<&str> = objects.iter().map(String::as_str).collect();
    let link = Job {
        output: out.join(format!("emulator.{}.so", hash(&names))),
        program: cxx.to_path_buf(),
        args: objects.iter().cloned().chain(flags).collect(),
        source: "the emulated device".to_string(),
    };
    let output = link.output.clone();
    run(&[link])?;
    Ok((output, jobs.into_iter().map(|job| job.output).collect()))
}

fn read_folder(folder: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    let read = |path: PathBuf| fs::read_to_string(&path).map(|text| (path, text));
    files.into_iter().filter_map(|path| read(path).ok()).collect()
}

fn stem_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Deletes the outputs of earlier builds from OUT_DIR.
fn sweep(out: &Path, kept: &[PathBuf]) {
    for path in fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let made = path.extension().is_some_and(|e| e == "fatbin" || e == "so" || e == "o" || e == "partial");
        if made && !kept.contains(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Handles an optional part: if it is missing, prints a warning, or fails if PERISTYLE_REQUIRE_KERNELS is 1.
fn optional<T>(what: &str, made: Result<T, String>) -> Result<T, String> {
    if let Err(reason) = &made {
        if variable("PERISTYLE_REQUIRE_KERNELS").is_some_and(|value| value == "1") {
            eprintln!("PERISTYLE_REQUIRE_KERNELS=1, but this build lacks {what}: {reason}");
            std::process::exit(1);
        }
        println!("cargo:warning=building without {what}: {reason}");
    }
    made
}

fn main() {
    if let Err(message) = build() {
        eprintln!("{message}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).ok_or(format!("cargo did not set {name}"));
    let (root, out) = (folder("CARGO_MANIFEST_DIR")?, folder("OUT_DIR")?);
    ["build.rs", "build", "kernels"].iter().for_each(|path| println!("cargo:rerun-if-changed={path}"));
    variable("PERISTYLE_REQUIRE_KERNELS");

    let mut sources = Vec::new();
    let mut read = Vec::new();
    let read_headers = |(path, text): &(PathBuf, String)| {
        tokens::Code::of(&path.strip_prefix(&root).unwrap_or(path).to_string_lossy(), text)
    };
    let optim = read_folder(&root.join("kernels/optim"), "cuh");
    let cuh: Vec<(PathBuf, String)> =
        read_folder(&root.join("kernels"), "cuh").into_iter().chain(optim.clone()).collect();
    let structs: Vec<tokens::Code> = cuh.iter().map(read_headers).collect();
    structs.iter().try_for_each(signatures::check_header)?;
    let read_transform =
        |file: &(PathBuf, String)| transforms::read(&stem_of(&file.0), file.0.clone(), &read_headers(file));
    let all_transforms: Vec<transforms::DeviceTransform> =
        optim.iter().map(read_transform).collect::<Result<_, _>>()?;
    let mut shared = Vec::new();
    for (path, mut text) in read_folder(&root.join("kernels"), "cu") {
        let stem = stem_of(&path);
        let mut kernels = signatures::read(&tokens::Code::of(&format!("kernels/{stem}.cu"), &text), &structs)?;
        let mut path = path.display().to_string();
        if stem == "optim" {
            let apply = kernels.iter().find(|kernel| kernel.name == "optim_apply");
            shared = transforms::shared(apply.ok_or("kernels/optim.cu has no kernel \"optim_apply\"")?).to_vec();
            let [before, after] = [transforms::prelude(&all_transforms), transforms::kernels(&all_transforms, &shared)];
            kernels.extend(signatures::read(&tokens::Code::of("build/transforms.rs", &after), &structs)?);
            let whole = out.join("optim.cu");
            fs::write(&whole, format!("{before}#include \"{path}\"\n{after}"))
                .map_err(|error| format!("{}: {error}", whole.display()))?;
            path = whole.display().to_string();
            text += &after;
        }
        let (gpu, host) = (entries::gpu_source(&path, &kernels), entries::host_source(&path, &kernels));
        read.push((stem.clone(), kernels));
        sources.push(Source { stem, text, gpu, host });
    }
    let text = |files: Vec<(PathBuf, String)>| files.into_iter().map(|(_, text)| text).collect::<String>();
    let headers = text(cuh) + &text(read_folder(&root.join("kernels/host"), "h"));

    let mut kept = Vec::new();
    let settings: Vec<geometry::Geometry> = all_transforms.iter().map(|t| t.settings.clone()).collect();
    let mut table = launchers::entries(&read, &settings);
    table += "\n/// The fatbin of every kernel file: its name, its bytes.\npub static IMAGES: &[(&str, &[u8])] = &[\n";
    let (mut archs, chosen) = (Vec::new(), variable("PERISTYLE_CUDA_ARCHS").unwrap_or_else(|| ARCHS.to_string()));
    if let Ok(nvcc) = optional("GPU kernels", find_nvcc(&root)) {
        archs = chosen.split(',').map(str::trim).collect();
        let jobs = nvcc_jobs(&nvcc, &archs, &sources, &headers, &out)?;
        run(&jobs)?;
        for (source, job) in sources.iter().zip(&jobs) {
            let path = job.output.display().to_string();
            let _ = writeln!(table, "    ({:?}, &Aligned(*include_bytes!({path:?})).0),", source.stem);
        }
        kept.extend(jobs.into_iter().map(|job| job.output));
        println!("cargo:rustc-env=PERISTYLE_BUILT_WITH_NVCC={}", nvcc.display());
        // Tests that need kernels are ignored in a build without them.
        println!("cargo:rustc-cfg=peristyle_kernels");
    }
    table += "];\n\n/// The architectures in every fatbin: `compute_80` for PTX, `sm_80` for machine code.\n";
    let _ = writeln!(table, "pub static ARCHS: &[&str] = &{archs:?};");
    table += "\n/// The library of the emulated device; empty when no C++ compiler was found.\n";
    if let Ok(cxx) = optional("the emulated device", find_cxx()) {
        let (library, objects) = emulator(&cxx, &sources, &headers, &root, &out)?;
        let _ = writeln!(table, "pub static EMULATOR: &[u8] = include_bytes!({:?});", library.display().to_string());
        kept.extend(objects.into_iter().chain([library]));
        println!("cargo:rustc-env=PERISTYLE_BUILT_WITH_CXX={}", cxx.display());
    } else {
        table += "pub static EMULATOR: &[u8] = &[];\n";
    }
    println!("cargo:rustc-env=PERISTYLE_ENTRIES={}", out.display());
    sweep(&out, &kept);
    let launchers = launchers::launchers(&read) + &transforms::rust(&all_transforms, &shared);
    for (name, text) in [("embedded.rs", table), ("kernels.rs", launchers)] {
        let path = out.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
