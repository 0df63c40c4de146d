//! The keys of all sections: for each, what it means, its type, range, default and an example. Sections are read by them,
//! and names that users guess are looked up in them; the reference of the file is written from them.

use super::key::KeyDefault::{Chosen, Required, Value};
use super::key::{SectionKey, key, within};
use super::run_keys::RUN_KEYS;

const LIBRARIES: &str = "What NVIDIA's libraries may compute on cuda devices: nothing; products and convolutions; or also the \
                         weight gradients of bf16 convolutions, which they round to bf16.";

/// The keys of the sections about what is trained, in the order of the reference.
const KEYS: &[SectionKey] = &[
    key(
        "name",
        "text",
        Chosen("the name of the file"),
        "\"lenet\"",
        "The name of the run, part of the name of its directory.",
    ),
    key(
        "seed",
        "integer",
        Value("1"),
        "7",
        "Determines all random numbers: initial values, order, augmentation, dropout.",
    ),
    key(
        "devices.use",
        "text, or a list of texts",
        Value("\"auto\""),
        "\"cuda:0-3\"",
        "The devices: `auto` (all GPUs, otherwise one CPU device), `cpu`, `cpu*4`, `cuda:0`, `cuda:0-3`, `cuda:0*2`, `emu`, \
         `emu*2`.",
    ),
    key(
        "devices.mesh",
        "table of `data` and `columns`",
        Chosen("all devices along `data`"),
        "{ data = 2, columns = 2 }",
        "The arrangement of the devices; the product is their number.",
    ),
    key(
        "devices.precision",
        "`f32`, `f64`, `tf32` or `bf16`",
        Value("\"f32\""),
        "\"bf16\"",
        "The precision of the computation. `f64` is for cpu devices; `tf32` and `bf16` have no effect there.",
    ),
    key(
        "devices.split",
        "`columns`, `rows`, `batch` or `none`, or a table of these by kinds of layers",
        Value("\"columns\""),
        "{ conv = \"batch\", dense = \"columns\" }",
        "How layers without a split of their own are divided along the columns: those with weights, or those of the kinds in the \
         table. A layer that cannot be divided so takes `batch`, which is noted.",
    ),
    key(
        "devices.collectives",
        "`one_pass`, `ring`, `nccl` or `mpi`",
        Chosen(
            "`one_pass` on cpu devices, otherwise `ring`; between processes `nccl` on cuda devices, otherwise `mpi`",
        ),
        "\"nccl\"",
        "The algorithm by which the devices of a process exchange data, and what moves data between processes. `nccl` does both; `mpi` only the second.",
    ),
    key(
        "devices.deterministic",
        "`true` or `false`",
        Value("false"),
        "true",
        "Whether collectives between processes add in the order of those within one process, for the same bits; otherwise NCCL and MPI add as they like.",
    ),
    key(
        "devices.reduce_precision",
        "`f32` or `bf16`",
        Value("\"f32\""),
        "\"bf16\"",
        "The precision in which NCCL sums gradients: `bf16` halves what crosses between GPUs, and rounds every term and sum to three digits.",
    ),
    key(
        "devices.peer_access",
        "`auto` or `off`",
        Value("\"auto\""),
        "\"off\"",
        "Whether GPUs read each other's memory where they can, or exchange data through host memory.",
    ),
    key("devices.libraries", "`off`, `auto` or `fast`", Value("\"auto\""), "\"off\"", LIBRARIES),
    within(
        "1 to 1024",
        key(
            "devices.threads",
            "integer",
            Chosen("the cores, shared among cpu devices"),
            "4",
            "The threads of each cpu or emu device.",
        ),
    ),
    key("data.train", "source", Required, "{ digits = \"train\" }", "The training data."),
    key("data.test", "source", Chosen("none"), "{ digits = \"test\" }", "The test data."),
    within(
        "0 <= share < 1",
        key(
            "data.validation",
            "number",
            Value("0.0"),
            "0.1",
            "The share of the training data that is held out for validation.",
        ),
    ),
    within(
        "0 <= share < 1",
        key(
            "data.label_noise",
            "number",
            Value("0.0"),
            "0.1",
            "The share of the training samples whose class is replaced by another one, drawn once: to see what wrong labels do. Validation and \
             test data keep theirs.",
        ),
    ),
    within("at least 1", key("data.batch", "integer", Required, "64", "The samples of an update, over all devices.")),
    key(
        "data.normalize",
        "`none`, `unit`, `standardize`, `standardize_features`, `imagenet` or table",
        Chosen("`unit` for 8-bit images, `none` for floats"),
        "\"standardize\"",
        "How pixels are normalised: not at all; 8-bit pixels divided by 255; or then each channel to mean 0 and standard \
         deviation 1 over the training data; or each feature, a channel of a pixel, in the same way. Of pictures that are read while training, \
         so many are measured as have 2^30 values together, but at least 1,000, chosen by the seed. `{ mean = [0.5, 0.5, 0.5], std = 0.25 }` has \
         the numbers for 8-bit pixels divided by 255, one for each channel or one for all; `imagenet` stands for the means 0.485, 0.456, 0.406 \
         and the deviations 0.229, 0.224, 0.225.",
    ),
    key(
        "data.whiten",
        "way to whiten",
        Chosen("none"),
        "{ zca = { epsilon = 0.01 } }",
        "Makes the features of normalised images uncorrelated, with mean 0: x' = W (x - mean), where x has all values of an image, at most \
         4096. Mean and W are fitted to the training data, and kept in checkpoints.",
    ),
    key(
        "data.augment",
        "list of augmentations",
        Value("[]"),
        "[{ shift = 2 }]",
        "Random changes of training images, in order.",
    ),
    key(
        "data.mix",
        "list of mixtures",
        Value("[]"),
        "[{ mixup = 0.2 }, { cutmix = 1.0 }]",
        "Mixes pairs of training samples and their targets. Of several kinds, each sample takes one at random.",
    ),
    key(
        "data.order",
        "`shuffle`, `class_alternating`, `sequential` or `hard_examples`",
        Value("\"shuffle\""),
        "{ hard_examples = { share = 0.5 } }",
        "The order of the training samples in an epoch. With `class_alternating`, successive samples share no class where that is possible; with \
         `hard_examples`, those with large losses come more often.",
    ),
    within(
        "1 to 256",
        key(
            "data.workers",
            "integer",
            Chosen("1 beside cpu and emu devices, otherwise one per core, at most 8"),
            "4",
            "The threads that read, augment and normalise images. Batches do not depend on them.",
        ),
    ),
    key("model.input", "[height, width, channels]", Required, "[28, 28, 1]", "The shape of a sample."),
    key("model.layers", "list of layers", Required, "[\"relu\", { dense = { units = 10 } }]", "The layers, in order."),
    key(
        "model.blocks",
        "table of blocks",
        Chosen("none"),
        "{ pair = { with = { units = 8 }, layers = [{ dense = { units = \"$units\" } }, \"relu\"] } }",
        "Blocks of layers with parameters, which may stand in `layers` like a kind (docs/BLOCKS.md).",
    ),
    key(
        "model.init",
        "initial values",
        Chosen(
            "`kaiming`; for the last layer before a loss, with `gain = 0.1`, so that the first loss of a classifier is about ln(classes)",
        ),
        "\"xavier\"",
        "The initial values of weights whose layer does not fix them.",
    ),
    key(
        "model.loss",
        "loss, or list of losses",
        Value("\"softmax_cross_entropy\""),
        "{ softmax_cross_entropy = { label_smoothing = 0.1 } }",
        "What training minimises: a loss, or the weighted sum of several.",
    ),
    key(
        "model.from",
        "text or table",
        Chosen("none"),
        "\"weights.safetensors\"",
        "The weights that training starts from: a safetensors file, a run directory or a checkpoint (docs/WEIGHTS.md).",
    ),
    key("model.from.file", "text", Required, "\"weights.safetensors\"", "The file, run directory or checkpoint."),
    key(
        "model.from.skip",
        "list of patterns",
        Value("[]"),
        "[\"fc8.*\"]",
        "Layers and tensors that keep their initial values.",
    ),
    key(
        "model.from.map",
        "table",
        Value("{}"),
        "{ \"features.0\" = \"conv1\" }",
        "Names of the file, and those of this network.",
    ),
    key(
        "model.from.strict",
        "true or false",
        Value("true"),
        "false",
        "Whether the file must have every other tensor of the network.",
    ),
    key(
        "model.loss.*.name",
        "text",
        Chosen("`loss`; of several, `loss1` and so on"),
        "\"aux\"",
        "The name of the loss.",
    ),
    key(
        "model.loss.*.inputs",
        "list of names",
        Chosen("the last layer"),
        "[\"aux_fc\"]",
        "The layer whose output it compares with the targets.",
    ),
    within(
        "a number above 0 and within single precision",
        key("model.loss.*.weight", "number", Value("1.0"), "0.3", "Its factor in the sum of the losses."),
    ),
    key("model.layers.*.name", "text", Chosen("the kind and a number: `conv1`"), "\"fc8\"", "The name of the layer."),
    key(
        "model.layers.*.inputs",
        "list of names",
        Chosen("the layer before"),
        "[\"bn2\", \"relu1\"]",
        "The layers, or `images`, that it reads.",
    ),
    key(
        "model.layers.*.split",
        "`columns`, `rows`, `batch` or `none`",
        Chosen("`columns` for conv, dense and locally_connected; others keep the layout of their input"),
        "\"batch\"",
        "How the layer is divided along the columns of the mesh.",
    ),
    within(
        "a number, at least 0 and within single precision",
        key(
            "model.layers.*.lr_mult",
            "number, or table by parameter",
            Value("1.0"),
            "{ weight = 1.0, bias = 2.0 }",
            "Multiplies the learning rate of its parameters; 0 freezes them.",
        ),
    ),
    within(
        "a number, at least 0 and within single precision",
        key(
            "model.layers.*.decay_mult",
            "number, or table by parameter",
            Value("1.0"),
            "{ bias = 0.0 }",
            "Multiplies the weight decay of its parameters.",
        ),
    ),
    key(
        "model.layers.*.init",
        "initial values",
        Chosen("model.init"),
        "{ normal = { std = 0.01 } }",
        "The initial values of its weights.",
    ),
    key(
        "optimizer.chain",
        "list of transforms",
        Value("[]"),
        "[{ momentum = 0.9 }]",
        "What is done to the gradients, in order; nothing is plain descent.",
    ),
    within(
        "a number above 0 that is neither 0 nor infinite in single precision",
        key("optimizer.lr", "number", Required, "0.01", "The learning rate."),
    ),
    within(
        "a number above 0 within single precision",
        key(
            "optimizer.lr_by_depth",
            "number",
            Value("1.0"),
            "1.2",
            "The learning rate of each layer that has parameters, as a factor of that of the next one in the file.",
        ),
    ),
    key(
        "optimizer.scale_lr",
        "`none`, `linear` or `sqrt`",
        Value("\"none\""),
        "\"linear\"",
        "Multiplies the learning rate by `data.batch` / `lr_batch`, or by its root.",
    ),
    within(
        "at least 1",
        key("optimizer.lr_batch", "integer", Value("256"), "128", "The batch that `lr` is meant for, with `scale_lr`."),
    ),
    key(
        "optimizer.groups",
        "table of groups, by patterns",
        Value("{}"),
        "{ bias = { lr_mult = 2.0, decay_mult = 0.0 } }",
        "Parameters with settings of their own: those of a layer (`fc8`, `conv*`), one of them (`fc8.weight`), or all of \
         a name (`bias`). The key with the most characters besides stars decides.",
    ),
    within(
        "a number, at least 0 and within single precision",
        key(
            "optimizer.groups.*.lr_mult",
            "number",
            Value("1.0"),
            "2.0",
            "Multiplies their learning rate, besides the `lr_mult` of the layer; 0 freezes them.",
        ),
    ),
    within(
        "a number, at least 0 and within single precision",
        key(
            "optimizer.groups.*.decay_mult",
            "number",
            Value("1.0"),
            "0.0",
            "Multiplies their weight decay, besides the `decay_mult` of the layer.",
        ),
    ),
    key(
        "optimizer.groups.*.chain",
        "list of transforms",
        Chosen("optimizer.chain"),
        "[\"adam\"]",
        "Their own chain. Its global norm is that of this group.",
    ),
    key(
        "optimizer.method",
        "method",
        Chosen("none"),
        "{ lbfgs = {} }",
        "A second-order method in place of `chain`, on CPU devices.",
    ),
    key(
        "optimizer.schedule",
        "schedule, or list of schedules",
        Value("[]"),
        "[{ warmup = { steps = 500 } }, { cosine = {} }]",
        "How the learning rate changes: each schedule multiplies it, in order.",
    ),
];

/// Returns all keys, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static SectionKey> {
    KEYS.iter().chain(RUN_KEYS)
}

fn find(section: &str, name: &str) -> Option<&'static SectionKey> {
    all().find(|key| match key.path.rsplit_once('.') {
        Some((table, last)) => table == section && last == name,
        None => section.is_empty() && key.path == name,
    })
}

/// Returns whether the list has a key, or a section of the file.
pub fn is_known(section: &str, name: &str) -> bool {
    let is_section = || all().any(|key| key.path.split_once('.').is_some_and(|(first, _)| first == name));
    find(section, name).is_some() || (section.is_empty() && is_section())
}

/// Returns the key with a path.
///
/// # Panics
/// If there is none: every key that is read is in the list.
pub fn of_path(section: &str, name: &str) -> &'static SectionKey {
    find(section, name).unwrap_or_else(|| panic!("{section}.{name} is not in the list of keys"))
}
