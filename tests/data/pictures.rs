//! Folders of pictures, which are read, decoded, cut and resized while training.

use crate::common::file;
use crate::common::runs::{Folder, assert_code, copy_signs, events, losses};
use peristyle::data::{Base, DataSettings, Frames, Labels, Pixels, open};
use peristyle::train::{DataPolicy, Job};

/// Copies the first `train` and `test` photographs of each sign to `signs/train` and `signs/test`, and writes `signs.toml`, which learns from them.
fn signs(name: &str, [train, test]: [usize; 2], augment: &str) -> Folder {
    let folder = Folder::new(name);
    copy_signs(&folder, [train, test]);
    let config = format!(
        "[data]\ntrain = {{ folder = \"signs/train\", size = 32 }}\ntest = {{ folder = \"signs/test\", size = 32 }}\nbatch = 20\n\
         normalize = \"standardize\"\naugment = {augment}\n[model]\ninput = [24, 24, 3]\n\
         layers = [{{ conv = {{ filters = 8, kernel = 5, stride = 4 }} }}, \"relu\", \"flatten\", {{ dense = {{ units = 10 }} }}]\n\
         [optimizer]\nlr = 0.02\nchain = [{{ momentum = 0.9 }}]\n[train]\nsteps = 12\nevaluate = \"6 steps\"\n"
    );
    folder.write("signs.toml", &config);
    folder
}

fn train(folder: &Folder, dir: &str, sets: &[&str]) -> Vec<f64> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    folder.good(&["train", "signs.toml", "--run-dir", dir].into_iter().chain(sets).collect::<Vec<_>>());
    losses(&folder.metrics(dir))
}

const CROPPED: &str = "[{ crop = 24 }, { flip = \"horizontal\" }]";
const FRAMED: &str = "[{ random_resized_crop = 24 }, { color = { brightness = 0.2 } }]";

#[test]
fn pictures_have_one_curve_wherever_they_are_prepared() {
    for (name, augment, sets) in [
        ("pictures-size", CROPPED, &[][..]),
        (
            "pictures-framed",
            FRAMED,
            &[
                "data.train={ folder = \"signs/train\" }",
                "data.test={ folder = \"signs/test\" }",
                "data.mix=[{ mixup = 0.3 }]",
            ],
        ),
    ] {
        let folder = signs(name, [9, 3], augment);
        let with = |more: &[&'static str]| [sets, more].concat();
        let whole = train(&folder, "whole", &with(&[]));
        assert_eq!(train(&folder, "workers", &with(&["data.workers=3"])), whole);
        let near = |other: &[f64]| other.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5 * b);
        let two = train(&folder, "two", &with(&["devices.use=\"cpu*2\""]));
        assert!(near(&two), "{two:?} {whole:?}");
        let emulated = train(&folder, "emulated", &with(&["devices.use=\"emu*2\""]));
        assert!(near(&emulated), "{emulated:?} {whole:?}");
        train(&folder, "parts", &with(&["train.steps=5"]));
        let sets: Vec<&str> = with(&["train.steps=12"]).iter().flat_map(|set| ["--set", *set]).collect();
        folder.good(&[&["train", "signs.toml", "--run-dir", "parts", "--resume"], &sets[..]].concat());
        assert_eq!(folder.checkpoint("parts", 12), folder.checkpoint("whole", 12));
        // Nothing about an evaluation is drawn.
        let last = events(&folder.metrics("whole"), "eval").pop().unwrap();
        let shown = folder.good(&["eval", "whole"]).out;
        assert!(shown.contains(&format!("loss {:.6}", last["loss"].as_f64().unwrap())), "{shown}, {last}");
    }
}

#[test]
fn a_folder_trains_as_the_same_pixels_in_memory() {
    let folder = signs("pictures-memory", [6, 2], "[{ shift = 2 }]");
    let sets = ["data.train={ folder = \"signs/train\" }", "data.test={ folder = \"signs/test\" }"];
    let same = sets.map(|set| set.replace("\" }", "\", size = 100 }"));
    let sets = [&same[0], &same[1], "model.input=[100, 100, 3]"];
    let stream = train(&folder, "stream", &sets);
    for part in ["train", "test"] {
        let text = format!("batch = 1\n[train.folder]\nfolder = \"signs/{part}\"\nsize = 100\n");
        let settings: DataSettings = toml::from_str(&text).unwrap();
        let data = open(&settings, 1, &Base::from(&*folder.0)).unwrap().train.data.clone();
        let (Pixels::U8(pixels), Labels::Index(labels)) = (data.all_pixels().unwrap(), &data.labels) else { panic!() };
        // Channels first, as safetensors files have them.
        let planes: Vec<u8> = pixels
            .chunks_exact(100 * 100 * 3)
            .flat_map(|image| (0..3).flat_map(|c| image.iter().skip(c).step_by(3).copied()).collect::<Vec<u8>>())
            .collect();
        let labels: Vec<u8> = labels.iter().map(|&label| label as u8).collect();
        let view = |shape: Vec<usize>, bytes| {
            safetensors::tensor::TensorView::new(safetensors::tensor::Dtype::U8, shape, bytes).unwrap()
        };
        let tensors =
            [("images", view(vec![labels.len(), 3, 100, 100], &planes)), ("labels", view(vec![labels.len()], &labels))];
        std::fs::write(folder.at(&format!("{part}.safetensors")), safetensors::serialize(tensors, None).unwrap())
            .unwrap();
    }
    let memory = ["data.train={ tensors = \"train.safetensors\" }", "data.test={ tensors = \"test.safetensors\" }"];
    assert_eq!(train(&folder, "memory", &[memory[0], memory[1], sets[2]]), stream);
    let evaluated = |dir: &str| events(&folder.metrics(dir), "eval");
    assert_eq!(evaluated("memory"), evaluated("stream"));
}

#[test]
fn a_test_set_has_the_classes_of_the_training_set() {
    let folder = signs("pictures-classes", [3, 2], CROPPED);
    let first = train(&folder, "first", &["train.steps=1"]);
    let loss = |dir: &str| events(&folder.metrics(dir), "eval").pop().unwrap()["loss"].as_f64().unwrap();
    // Without the first classes, the others keep their numbers: the sum of the losses of both halves is that of the whole.
    for (half, gone) in [("upper", 0..5), ("lower", 5..10)] {
        for class in 0..10 {
            let (from, to) = (format!("signs/test/sign_{class}"), format!("signs/{half}/sign_{class}"));
            if !gone.contains(&class) {
                std::fs::create_dir_all(folder.at(&to)).unwrap();
                for entry in std::fs::read_dir(folder.at(&from)).unwrap() {
                    let path = entry.unwrap().path();
                    std::fs::copy(&path, folder.at(&to).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
        let test = format!("data.test={{ folder = \"signs/{half}\", size = 32 }}");
        assert_eq!(train(&folder, half, &["train.steps=1", &test]), first);
    }
    assert!((loss("upper") + loss("lower") - 2.0 * loss("first")).abs() < 1e-5);
    std::fs::rename(folder.at("signs/lower/sign_3"), folder.at("signs/lower/sign_x")).unwrap();
    let unknown = folder.run(&["check", "signs.toml", "--set", "data.test={ folder = \"signs/lower\", size = 32 }"]);
    assert_code(&unknown, 2, &["sign_x: is not one of the 10 classes", "remove the folder, or correct its name"]);
}

#[test]
fn validation_takes_the_same_share_of_every_class() {
    let folder = signs("pictures-validation", [10, 1], "[]");
    let text = "batch = 1\nvalidation = 0.25\n[train.folder]\nfolder = \"signs/train\"\nsize = 16\n";
    let settings: DataSettings = toml::from_str(text).unwrap();
    let sets = |seed| open(&settings, seed, &Base::from(&*folder.0)).unwrap();
    let validation = sets(1).validation.unwrap();
    let Labels::Index(labels) = &validation.data.labels else { panic!() };
    let mut counts = [0; 10];
    validation.samples.iter().for_each(|&sample| counts[labels[sample as usize] as usize] += 1);
    // Of 10 pictures, 2.5 are a quarter; of equal rests, the lower classes get one more.
    assert_eq!(counts, [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]);
    assert_ne!(sets(2).validation.unwrap().samples, validation.samples);
    assert_eq!(validation.data.names.as_deref().unwrap()[7], "sign_7");
}

#[test]
fn frames_are_all_entries_until_pictures_have_one_size() {
    let list = |text: &str| {
        toml::from_str::<DataSettings>(&format!("train = \"digits\"\nbatch = 1\naugment = {text}")).unwrap().augment
    };
    for (text, varying, fixed) in [
        ("[{ resize = 30 }, { crop = 24 }, { crop = 20 }, { flip = \"horizontal\" }]", 2, 1),
        ("[{ resize = { size = [30, 40], fit = \"pad\" } }, { crop = 24 }]", 1, 1),
        ("[{ random_resized_crop = 24 }, { crop = 20 }]", 1, 1),
        ("[{ crop = 24 }, { flip = \"horizontal\" }]", 1, 0),
        ("[{ flip = \"vertical\" }, { resize = 30 }]", 2, 2),
    ] {
        let list = list(text);
        assert_eq!((Frames::count(&list, true), Frames::count(&list, false)), (varying, fixed), "{text}");
    }
}

#[test]
fn the_speed_of_pictures_is_measured_stage_by_stage() {
    let folder = signs("pictures-speed", [3, 1], CROPPED);
    let measured = ["bench", "data", "signs.toml", "--threads", "2", "--seconds", "0.05", "--repeats", "2"];
    let json = folder.good(&[&measured[..], &["--json"]].concat()).out;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let stages: Vec<(&str, u64)> = report["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| (stage["stage"].as_str().unwrap(), stage["threads"].as_u64().unwrap()))
        .collect();
    assert_eq!(stages, [("read", 1), ("decode", 1), ("prepare", 1), ("all", 1), ("loader", 1), ("loader", 2)]);
    assert_eq!((&report["images"], &report["shape"]), (&30.into(), &serde_json::json!([24, 24, 3])));
    let text = folder.good(&measured).out;
    assert!(text.starts_with("signs: 30 images of 24x24x3") && text.lines().count() == 9, "{text}");
}

#[test]
fn networks_for_imagenet_are_checked_and_planned_without_its_pictures() {
    let (alexnet, resnet50) = (60_965_224, 25_557_032);
    for (name, parameters, devices, processes) in [
        ("imagenet/alexnet", alexnet, &["cpu", "cuda:0-1"][..], 1),
        ("imagenet/resnet50", resnet50, &["cpu", "cuda:0-1"], 1),
        ("cluster/alexnet_hybrid", alexnet, &["cuda:0-3"], 2),
        ("cluster/resnet50", resnet50, &["cuda:0-7"], 8),
    ] {
        let config = file(&format!("configs/{name}.toml"));
        for devices in devices {
            let sets = [format!("devices.use=\"{devices}\""), format!("cluster.processes={processes}")];
            let (job, plan) = Job::open(&config, &sets, DataPolicy::Optional).unwrap_or_else(|error| panic!("{error}"));
            let counted: usize = job.network.parameters.iter().map(|p| p.param.shape.elements()).sum();
            assert_eq!((counted, plan.programs.is_empty()), (parameters, false), "{name}");
            // Nothing but the data is missing.
            let Err(error) = Job::open(&config, &sets, DataPolicy::Checked) else { panic!("{name} has data") };
            let problems = error.problems();
            let missing = |path: &str| {
                problems.iter().any(|problem| problem.message.contains(&format!("data/imagenet/{path}: no such file")))
            };
            assert!(problems.len() == 2 && missing("train") && missing("val"), "{problems:?}");
        }
    }
}

#[test]
fn given_numbers_normalise_as_measured_ones_do() {
    let folder = signs("pictures-normalize", [4, 1], CROPPED);
    let imagenet = train(&folder, "imagenet", &["data.normalize=\"imagenet\""]);
    let numbers = "data.normalize={ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }";
    assert_eq!(train(&folder, "numbers", &[numbers]), imagenet);
    // Those that a run has measured are in its checkpoint.
    let measured = train(&folder, "measured", &[]);
    let state: serde_json::Value =
        serde_json::from_str(&folder.read("measured/checkpoints/step-00000012/state.json")).unwrap();
    let found = &state["info"]["data"]["normalization"];
    let given = format!("data.normalize={{ mean = {}, std = {} }}", found["mean"], found["std"]);
    assert_eq!(train(&folder, "given", &[&given]), measured);
    // A file with all defaults written out is the same.
    let whole = folder.good(&["check", "signs.toml", "--defaults", "--set", numbers]).out;
    folder.write("whole.toml", &whole);
    folder.good(&["train", "whole.toml", "--run-dir", "whole"]);
    assert_eq!(losses(&folder.metrics("whole")), imagenet);
    let refused = folder.run(&["check", "signs.toml", "--set", "data.normalize={ mean = [0.5, 0.5], std = 0.25 }"]);
    assert_code(&refused, 2, &["normalize: mean has 2 numbers, but the images have 3 channels; give one for each"]);
}

#[test]
fn what_is_measured_on_a_part_of_the_pictures_is_said() {
    let folder = signs("pictures-measured", [2, 1], "[{ crop = 24 }]");
    std::fs::copy(file("tests/photos/odd/size_1x1.png"), folder.at("1.png")).unwrap();
    std::fs::copy(file("tests/photos/plain/cat.png"), folder.at("2.png")).unwrap();
    let list: String = (0..1001).map(|i| format!("{}.png {}\n", 1 + i / 1000, i / 1000)).collect();
    folder.write("list.txt", &list);
    // So large that 2^30 values are 994 pictures, and at least 1000 are measured.
    let train = "data.train={ list = \"list.txt\", size = 600, filter = \"nearest\" }";
    let model = "model.layers=[\"global_avg_pool\", { dense = { units = 2 } }]";
    let sets = [train, model, "model.input=[600, 600, 3]", "data.augment=[]", "train.steps=1"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let said = |run: &str, more: &[&str]| {
        folder
            .good(
                &[
                    &[
                        "train",
                        "signs.toml",
                        "--run-dir",
                        run,
                        "--set",
                        "data.test={ list = \"list.txt\", size = 600 }",
                    ],
                    &sets[..],
                    more,
                ]
                .concat(),
            )
            .err
    };
    let note = "[data]: measured on 1000 of 1001 images: normalisation";
    assert!(said("measured", &[]).contains(note));
    assert!(!said("given", &["--set", "data.normalize=\"imagenet\""]).contains(note));
}
