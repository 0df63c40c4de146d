//! Finds the setting that a user means by a shorter name, or by the name that other programs give it.

use super::keys;

/// The paths of settings that a name may mean, as `--set` takes them: those of sections, and the transforms.
pub fn settings() -> impl Iterator<Item = &'static str> {
    const TRANSFORMS: [&str; 3] =
        ["optimizer.chain.momentum", "optimizer.chain.weight_decay", "optimizer.chain.clip_by_global_norm"];
    keys::all()
        .map(|key| key.path)
        .filter(|path| !path.contains('*') && !path.starts_with("model.from."))
        .chain(TRANSFORMS)
}

/// Names that other programs give to settings.
const ELSEWHERE: &[(&str, &str)] = &[
    ("learning_rate", "optimizer.lr"),
    ("batch_size", "data.batch"),
    ("num_epochs", "train.epochs"),
    ("max_epochs", "train.epochs"),
    ("num_steps", "train.steps"),
    ("max_steps", "train.steps"),
    ("random_seed", "seed"),
    ("gradient_accumulation_steps", "train.accumulate"),
    ("accumulate_grad_batches", "train.accumulate"),
    ("ema_decay", "train.ema"),
    ("lr_scheduler", "optimizer.schedule"),
];

/// Returns the path of the setting that a name means: `lr`, `learning-rate` and `optimizer.lr` all mean `optimizer.lr`.
pub fn setting_named(name: &str) -> Option<&'static str> {
    let name = name.replace('-', "_");
    let last = |path: &str| path.rsplit('.').next() == Some(&name);
    let whole = settings().find(|path| *path == name);
    let elsewhere = || ELSEWHERE.iter().find(|(other, _)| *other == name).map(|(_, path)| *path);
    whole.or_else(|| settings().find(|path| last(path))).or_else(elsewhere)
}

/// Returns ` (did you mean "x"?)` for an unknown key of a table with these keys, if it names a setting that is in the
/// table, or that is below one of its keys.
pub(super) fn suggest_setting(key: &str, known: &[&str]) -> Option<String> {
    let path = setting_named(key)?;
    let (table, last) = path.rsplit_once('.')?;
    let near = match table.split('.').next() {
        _ if known.contains(&last) => last,
        Some(section) if known.contains(&section) => path,
        _ => return None,
    };
    Some(format!(" (did you mean \"{near}\"?)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn settings_are_found_by_the_names_that_users_guess() {
        for name in ["lr", "learning_rate", "learning-rate", "optimizer.lr"] {
            assert_eq!(setting_named(name), Some("optimizer.lr"));
        }
        assert_eq!(setting_named("batch-size"), Some("data.batch"));
        assert_eq!(setting_named("weight-decay"), Some("optimizer.chain.weight_decay"));
        assert_eq!(setting_named("verbosity"), None);
        let suggest = |key, known: &[&str]| suggest_setting(key, known).unwrap_or_default();
        assert_eq!(suggest("lr", &["seed", "optimizer"]), " (did you mean \"optimizer.lr\"?)");
        assert_eq!(suggest("learning_rate", &["chain", "lr"]), " (did you mean \"lr\"?)");
        assert_eq!(suggest("lr", &["units", "bias"]), "");
    }

    const FILE: &str = "data = { train = \"digits\", batch = 8 }\noptimizer = { lr = 0.1, chain = [{ weight_decay = 1e-3 }, \
                        { clip_by_global_norm = 1 }, { momentum = 0.9 }] }\n[model]\ninput = [28, 28, 1]\n\
                        layers = [\"flatten\", { dense = { units = 10 } }]\n[train]\nsteps = 2";

    fn problems(set: &str) -> String {
        let parsed = crate::config::from_text("a.toml", FILE, Path::new("."), &[set.to_string()]);
        parsed.problems.iter().map(|problem| problem.to_string() + "\n").collect()
    }

    #[test]
    fn every_setting_that_is_suggested_exists() {
        assert_eq!(problems("seed=2"), "");
        for setting in settings() {
            let found = problems(&format!("{setting}={{}}"));
            assert!(!found.contains("unknown key") && !found.contains("has no"), "{setting}: {found}");
        }
    }

    #[test]
    fn every_setting_of_a_section_can_be_suggested() {
        for table in ["devices", "data", "model", "optimizer", "train", "train.checkpoint", "train.watch", "cluster"] {
            let found = problems(&format!("{table}.zzz=1"));
            let known = found.lines().find_map(|line| line.split_once("\"zzz\"")?.1.split_once("known keys: "));
            for key in known.unwrap_or_else(|| panic!("{table}: {found}")).1.split(", ") {
                assert!(settings().any(|path| path == format!("{table}.{key}")), "{table}.{key}");
            }
        }
    }

    #[test]
    fn a_short_name_in_a_set_is_answered_with_the_path() {
        for (set, near) in
            [("lr=1", "optimizer.lr"), ("batch-size=1", "data.batch"), ("optimizer.learning_rate=1", "lr")]
        {
            let found = problems(set);
            assert!(found.contains(&format!("\" (did you mean \"{near}\"?); known keys: ")), "{found}");
        }
    }
}
