//! The algorithm that computes each product and convolution. A choice is made once and kept, also in checkpoints,
//! because another algorithm would add in another order.

use crate::gpu::address::ComputeType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The algorithm of one product or convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Algorithm {
    /// Peristyle's own kernel.
    Own,
    /// An algorithm of cuBLASLt, in an encoding that only the same version of the library can read.
    CublasLt([u64; 8]),
    /// An algorithm of cuDNN with its math type.
    Cudnn {
        /// The number of the algorithm.
        algorithm: i32,
        /// The number of its math type.
        math: i32,
    },
}

impl From<Algorithm> for String {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Own => "own".into(),
            Algorithm::CublasLt(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:x}")).collect();
                format!("cublasLt {}", words.join(":"))
            }
            Algorithm::Cudnn { algorithm, math } => format!("cudnn {algorithm}:{math}"),
        }
    }
}

impl TryFrom<String> for Algorithm {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not an algorithm, expected \"own\", \"cublasLt ...\" or \"cudnn ...\"");
        let (library, numbers) = text.split_once(' ').unwrap_or((&text, ""));
        match library {
            "own" => Ok(Algorithm::Own),
            "cublasLt" => {
                let words = numbers.split(':').map(|word| u64::from_str_radix(word, 16));
                let words: Vec<u64> = words.collect::<Result<_, _>>().map_err(|_| wrong())?;
                Ok(Algorithm::CublasLt(words.try_into().map_err(|_| wrong())?))
            }
            "cudnn" => {
                let (algorithm, math) = numbers.split_once(':').ok_or_else(wrong)?;
                let number = |text: &str| text.parse().map_err(|_| wrong());
                Ok(Algorithm::Cudnn { algorithm: number(algorithm)?, math: number(math)? })
            }
            _ => Err(wrong()),
        }
    }
}

/// The choices of one library.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// The library's version; 0 if it was not available.
    pub version: usize,
    /// The algorithm of each product or convolution, keyed by a text with its extents.
    pub algorithms: BTreeMap<String, Algorithm>,
}

/// The choices of a run, as stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// The GPU for which they were made.
    pub gpu: String,
    /// The choices of cuBLASLt.
    pub products: Table,
    /// The choices of cuDNN.
    pub convolutions: Table,
}

/// The choices of a run. Its GPUs share them, so copies of a tensor are bit-identical everywhere.
#[derive(Debug, Default)]
pub struct Choices {
    record: Mutex<Record>,
    /// The products and convolutions that a library declined, each with its reason.
    declined: Mutex<BTreeMap<String, String>>,
    /// Whether a warning about the installation was given.
    warned: AtomicBool,
}

/// The library to which a table belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    CublasLt,
    Cudnn,
}

impl Record {
    fn table(&mut self, library: Library) -> &mut Table {
        match library {
            Library::CublasLt => &mut self.products,
            Library::Cudnn => &mut self.convolutions,
        }
    }
}

impl Choices {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a library declined a product or convolution.
    pub(super) fn decline(&self, key: &str, reason: &str) {
        self.declined.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_string(), reason.to_string());
    }

    /// Returns true the first time.
    pub(super) fn warns(&self) -> bool {
        !self.warned.swap(true, Ordering::Relaxed)
    }

    /// Returns the products and convolutions that a library declined, each with its reason.
    pub(super) fn declined(&self) -> BTreeMap<String, String> {
        self.declined.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the GPU and the library versions for which choices are made.
    pub(super) fn begin(&self, gpu: &str, cublas_lt: usize, cudnn: usize) {
        let mut record = self.lock();
        record.gpu = gpu.to_string();
        (record.products.version, record.convolutions.version) = (cublas_lt, cudnn);
    }

    pub(super) fn known(&self, library: Library, key: &str) -> Option<Algorithm> {
        self.lock().table(library).algorithms.get(key).copied()
    }

    pub(super) fn keep(&self, library: Library, key: &str, algorithm: Algorithm) {
        self.lock().table(library).algorithms.insert(key.to_string(), algorithm);
    }

    /// Returns all choices made so far.
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Restores the choices from a checkpoint. Returns a message for each library whose choices were made for another
    /// GPU or another version; these are made again.
    pub fn restore(&self, kept: &Record) -> Vec<String> {
        let mut now = self.lock();
        let mut notes = Vec::new();
        let gpu = now.gpu.clone();
        for (library, name) in [(Library::CublasLt, "cuBLASLt"), (Library::Cudnn, "cuDNN")] {
            let mut kept = kept.clone();
            let version = kept.table(library).version;
            let was = format!("{name} {version} on {}", kept.gpu);
            let is = format!("{name} {} on {gpu}", now.table(library).version);
            if was == is {
                now.table(library).algorithms.append(&mut kept.table(library).algorithms);
            } else if !kept.table(library).algorithms.is_empty() {
                notes.push(format!("the checkpoint's algorithms are for {was}, not for {is}: they are chosen again"));
            }
        }
        notes
    }
}

/// Returns the name of a format in the table of choices.
pub(super) fn name(format: ComputeType) -> &'static str {
    match format {
        ComputeType::F32 => "f32",
        ComputeType::Tf32 => "tf32",
        ComputeType::Bf16 => "bf16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(gpu: &str, version: usize) -> Choices {
        let choices = Choices::default();
        choices.begin(gpu, version, 91_000);
        choices
    }

    #[test]
    fn choices_survive_a_file_and_another_version_chooses_again() {
        let made = choices("H", 130_100);
        let lt = Algorithm::CublasLt([1, 2, 3, 4, 5, 6, 7, u64::MAX]);
        made.keep(Library::CublasLt, "a", lt);
        made.keep(Library::CublasLt, "b", Algorithm::Own);
        made.keep(Library::Cudnn, "a", Algorithm::Cudnn { algorithm: 1, math: 3 });
        let text = serde_json::to_string(&made.record()).unwrap();
        let read: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(read, made.record());

        let same = choices("H", 130_100);
        assert_eq!(same.restore(&read), Vec::<String>::new());
        assert_eq!(same.record(), made.record());
        assert_eq!(same.known(Library::CublasLt, "a"), Some(lt));

        let newer = choices("H", 130_200);
        let note = "the checkpoint's algorithms are for cuBLASLt 130100 on H, not for cuBLASLt 130200 on H: they are \
                    chosen again";
        assert_eq!(newer.restore(&read), [note]);
        assert_eq!(newer.known(Library::CublasLt, "a"), None);
        assert_eq!(newer.known(Library::Cudnn, "a"), Some(Algorithm::Cudnn { algorithm: 1, math: 3 }));
        assert_eq!(choices("A", 130_100).restore(&read).len(), 2);
    }

    #[test]
    fn text_that_is_not_an_algorithm_is_rejected() {
        for text in ["cublasLt 1:2", "cublasLt g:2:3:4:5:6:7:8", "cudnn 1", "mkl", ""] {
            assert!(Algorithm::try_from(text.to_string()).unwrap_err().contains("is not an algorithm"), "{text}");
        }
    }
}
