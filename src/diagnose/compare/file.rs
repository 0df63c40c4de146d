//! Reads the file of an experiment, and checks all that can be before anything is trained.

use super::experiment::{Condition, Expectation, Experiment, ExperimentVariant, Horizontal, Outline, Picture};
use super::names::{Names, order, references};
use super::quantity::{MeasuredSet, Moment, Quantity, find_metric, lacks_metric};
use crate::config::{Document, Every};
use crate::error::{Error, Fault, Locations, Problem, Result, number, suggest};
use crate::train::{DataPolicy, Job};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::{Path, PathBuf};

/// The seeds of a file that names none.
const SEEDS: [u64; 3] = [1, 2, 3];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    claim: Option<String>,
    seeds: Option<Vec<u64>>,
    // Read one by one.
    #[serde(rename = "variants", default)]
    _variants: IgnoredAny,
    #[serde(rename = "pictures", default)]
    _pictures: IgnoredAny,
    #[serde(rename = "expect", default)]
    _expect: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariant {
    name: String,
    config: PathBuf,
    #[serde(default)]
    set: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPicture {
    kind: String,
    x: Option<String>,
    y: Option<String>,
    y_scale: Option<String>,
    variants: Option<Vec<String>>,
    smooth: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpectation {
    of: String,
    at: Option<String>,
    ascending: Option<Vec<String>>,
    factor: Option<f64>,
    margin: Option<f64>,
    variant: Option<String>,
    above: Option<f64>,
    below: Option<f64>,
    same: Option<Vec<String>>,
    within: Option<f64>,
}

impl Experiment {
    /// Reads a file, and checks it and the configurations of all variants; `seeds` take the place of its own.
    ///
    /// # Errors
    /// All mistakes in the file, and in the configurations with the data that they name.
    pub fn open(path: &Path, seeds: Option<&[u64]>) -> Result<Experiment> {
        let mut document = Document::read(path)?;
        let (whole, locations) = document.whole::<RawFile>();
        let raw = document.tables::<RawVariant>("variants", "variant");
        let mut reader = Reader { document, path, names: Names::default(), outlines: Vec::new(), more: Vec::new() };
        let whole = whole.unwrap_or(RawFile {
            claim: None,
            seeds: None,
            _variants: IgnoredAny,
            _pictures: IgnoredAny,
            _expect: IgnoredAny,
        });
        let seeds = seeds.map(<[u64]>::to_vec).or(whole.seeds).unwrap_or(SEEDS.to_vec());
        if let Some(message) = wrong_seeds(&seeds) {
            reader.document.fault("the file", &locations, &Fault::at("seeds", message));
        }
        if raw.is_empty() {
            let message = "no variants, expected at least one: write [[variants]] with name and config";
            reader.document.fault("the file", &locations, &Fault::at("variants", message));
        }
        let (variants, notes) = reader.variants(raw, seeds.first().copied().unwrap_or(1))?;
        let pictures = reader.document.tables::<RawPicture>("pictures", "picture");
        let pictures = pictures.into_iter().zip(1..).filter_map(|((raw, locations), n)| {
            let (subject, raw) = (format!("picture {n}"), raw?);
            let found = reader.picture(&raw);
            reader.reported(&subject, &locations, found)
        });
        let pictures: Vec<Picture> = pictures.collect();
        let expectations = reader.document.tables::<RawExpectation>("expect", "expectation");
        let expectations = expectations.into_iter().zip(1..).filter_map(|((raw, locations), n)| {
            let (subject, raw) = (format!("expectation {n}"), raw?);
            let found = reader.expectation(&raw);
            reader.reported(&subject, &locations, found)
        });
        let expectations: Vec<Expectation> = expectations.collect();
        let order = order(&variants, reader.names.0.len()).unwrap_or_else(|circle| {
            let message = format!("variants start from each other's weights: {circle}; one must start on its own");
            reader.document.fault("the file", &locations, &Fault::at("variants", message));
            Vec::new()
        });
        let more = reader.more;
        match (reader.document.finish(), more.is_empty()) {
            (Ok(()), true) => {}
            (Ok(()), false) => return Err(Error::Config(more.into())),
            (Err(error), _) => return Err(Error::Config([error.problems(), more].concat().into())),
        }
        let name = path.file_stem().map_or("experiment".into(), |stem| stem.to_string_lossy().into_owned());
        let (path, claim) = (path.to_path_buf(), whole.claim);
        Ok(Experiment { name, path, claim, seeds, variants, order, pictures, expectations, notes })
    }
}

fn wrong_seeds(seeds: &[u64]) -> Option<String> {
    let again = seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed));
    match again {
        Some((_, seed)) => Some(format!("seed {seed} is there twice, expected different seeds")),
        None if seeds.is_empty() => Some("seeds = [], expected at least one".to_string()),
        None => None,
    }
}

/// Returns the problems of a configuration at the place of its variant.
pub fn of_variant(location: &str, name: &str, error: Error) -> Vec<Problem> {
    let message = |problem: Problem| format!("variant \"{name}\": {}: {}", problem.location, problem.message);
    let place = |problem| Problem { location: location.to_string(), message: message(problem) };
    error.problems().into_iter().map(place).collect()
}

/// What has been read of a file.
struct Reader<'p> {
    document: Document,
    path: &'p Path,
    names: Names,
    /// What is known of the variants; `None` for those with mistakes.
    outlines: Vec<Option<Outline>>,
    /// The problems of configurations.
    more: Vec<Problem>,
}

impl Reader<'_> {
    fn reported<T>(&mut self, subject: &str, locations: &Locations, found: Result<T, Fault>) -> Option<T> {
        found.map_err(|fault| self.document.fault(subject, locations, &fault)).ok()
    }

    /// Checks the variants with a seed; returns them, and notes on their configurations.
    fn variants(
        &mut self,
        raw: Vec<(Option<RawVariant>, Locations)>,
        seed: u64,
    ) -> Result<(Vec<ExperimentVariant>, Vec<String>)> {
        let name = |raw: &Option<RawVariant>| raw.as_ref().map(|raw| raw.name.clone()).unwrap_or_default();
        self.names = Names(raw.iter().map(|(raw, _)| name(raw)).collect());
        let (mut variants, mut notes) = (Vec::new(), Vec::<(String, String)>::new());
        for (index, (raw, locations)) in raw.into_iter().enumerate() {
            let subject = format!("variant {}", index + 1);
            self.outlines.push(None);
            let Some(RawVariant { name, config, set: sets }) = raw else { continue };
            let found = self.names.check(index);
            self.reported(&subject, &locations, found);
            let found = references(&sets, &self.names, index);
            let Some(needs) = self.reported(&subject, &locations, found) else { continue };
            let config = self.path.parent().unwrap_or(Path::new("")).join(config);
            // The weights of other variants are not there yet.
            let policy = if needs.is_empty() { DataPolicy::Required } else { DataPolicy::Trained };
            let seeded = [&sets[..], &[format!("seed={seed}")]].concat();
            let job = match Job::open(&config, &seeded, policy) {
                Ok((job, _)) => job,
                Err(error) if error.exit_code() == 1 => return Err(error),
                Err(error) => {
                    self.more.extend(of_variant(&locations.whole, &name, error));
                    continue;
                }
            };
            for note in &job.notes {
                match notes.iter_mut().find(|(known, _)| known == note) {
                    Some((_, names)) => *names += &format!(", \"{name}\""),
                    None => notes.push((note.clone(), format!("variant \"{name}\""))),
                }
            }
            let outline = outline(&job);
            self.outlines[index] = Some(outline.clone());
            variants.push(ExperimentVariant { name, location: locations.whole, config, sets, needs, outline });
        }
        let notes = notes.into_iter().map(|(note, names)| format!("{names}: {note}"));
        Ok((variants, notes.collect()))
    }

    /// Returns the indices of variants by their names: all of them if there are none.
    fn chosen(&self, key: &'static str, names: Option<&[String]>) -> Result<Vec<usize>, Fault> {
        let Some(names) = names else { return Ok((0..self.names.0.len()).collect()) };
        let indices: Vec<usize> = names.iter().map(|name| self.names.find(key, name)).collect::<Result<_, _>>()?;
        let again = indices.iter().enumerate().find(|(i, index)| indices[..*i].contains(index));
        match again {
            Some((_, &index)) => {
                Err(Fault::at(key, format!("{key} has \"{}\" twice, expected it once", self.names.0[index])))
            }
            None if indices.is_empty() => Err(Fault::at(key, format!("{key} = [], expected names of variants"))),
            None => Ok(indices),
        }
    }

    /// Checks that runs of these variants have a quantity.
    fn has(&self, key: &'static str, of: &Quantity, variants: &[usize]) -> Result<(), Fault> {
        for &index in variants {
            let Some(outline) = &self.outlines[index] else { continue };
            let lacks = |what: String| {
                Err(Fault::at(
                    key,
                    format!("{key} = \"{of}\": the network of variant \"{}\" {what}", self.names.0[index]),
                ))
            };
            if let Some(metric) = of.metric()
                && find_metric(metric, &outline.metrics).is_none()
            {
                return lacks(lacks_metric(metric, &outline.metrics));
            }
            if let Some(set) = of.evaluated_set()
                && !outline.evaluates.contains(&set)
            {
                let set = set.name();
                let advice = if set == "test" { "data.test" } else { "data.validation" };
                return lacks(format!("is not evaluated on a {set} set; set {advice} and train.evaluate"));
            }
        }
        Ok(())
    }

    fn picture(&self, raw: &RawPicture) -> Result<Picture, Fault> {
        let variants = self.chosen("variants", raw.variants.as_deref())?;
        match raw.kind.as_str() {
            "curves" => self.curves(raw, variants),
            "path" => {
                let given = [("x", raw.x.is_some()), ("y", raw.y.is_some()), ("y_scale", raw.y_scale.is_some())];
                if let Some((key, _)) = given.into_iter().chain([("smooth", raw.smooth.is_some())]).find(|(_, is)| *is)
                {
                    return Err(Fault::at(key, format!("{key} has no effect on a path; remove it")));
                }
                for &index in &variants {
                    let Some(outline) = &self.outlines[index] else { continue };
                    if outline.weights != 2 {
                        let (name, weights) = (&self.names.0[index], outline.weights);
                        let message = format!(
                            "kind = \"path\": the network of variant \"{name}\" has {weights} weights, expected 2"
                        );
                        return Err(Fault::at("kind", message));
                    }
                }
                Ok(Picture::Path { variants })
            }
            kind => Err(unknown("kind", kind, &["curves", "path"])),
        }
    }

    fn curves(&self, raw: &RawPicture, variants: Vec<usize>) -> Result<Picture, Fault> {
        let x = match raw.x.as_deref() {
            None | Some("updates") => Horizontal::Updates,
            Some("epochs") => Horizontal::Epochs,
            Some("samples") => Horizontal::Samples,
            Some(x) => return Err(unknown("x", x, &["updates", "epochs", "samples"])),
        };
        let name = raw.y.as_deref().unwrap_or("train.loss");
        let y = Quantity::parse(name).filter(Quantity::has_curve);
        let y = y.ok_or_else(|| unknown("y", name, &Quantity::CURVES))?;
        self.has("y", &y, &variants)?;
        let log = match raw.y_scale.as_deref() {
            None | Some("linear") => false,
            Some("log") => true,
            Some(scale) => return Err(unknown("y_scale", scale, &["linear", "log"])),
        };
        match raw.smooth {
            Some(0) => Err(Fault::at("smooth", "smooth = 0, expected a number of updates, at least 1")),
            Some(_) if !y.is_per_update() => Err(Fault::at(
                "smooth",
                format!("smooth has no effect on \"{y}\", which is measured by evaluations; remove it"),
            )),
            smooth => Ok(Picture::Curves { x, y, log, variants, smooth }),
        }
    }

    fn expectation(&self, raw: &RawExpectation) -> Result<Expectation, Fault> {
        let of = Quantity::parse(&raw.of);
        let of = of.ok_or_else(|| unknown("of", &raw.of, &[&Quantity::CURVES[..], &Quantity::SINGLE].concat()))?;
        let at = match raw.at.as_deref() {
            None if raw.same.is_some() && of.has_curve() => Moment::Every,
            None => Moment::End,
            Some(at) => {
                Moment::parse(at).ok_or_else(|| Fault::at("at", format!("at = {at:?}, {}", Moment::EXPECTED)))?
            }
        };
        if !of.has_curve() && at != Moment::End {
            return Err(Fault::at("at", format!("at: \"{of}\" is of a whole run; remove it")));
        }
        let holds = self.condition(raw)?;
        if at == Moment::Every && raw.same.is_none() {
            return Err(Fault::at(
                "at",
                "at = \"every update\" is for same alone, expected one moment, such as \"end\"",
            ));
        }
        self.has("of", &of, holds.variants())?;
        for &index in holds.variants() {
            let Some(outline) = &self.outlines[index] else { continue };
            let epochs = outline.steps.div_ceil(outline.epoch.batches() as u64);
            let (asked, made, noun) = match at {
                Moment::Update(step) => (step, outline.steps, "updates"),
                Moment::Epoch(epoch) => (epoch, epochs, "epochs"),
                _ => continue,
            };
            if asked > made {
                let name = &self.names.0[index];
                return Err(Fault::at(
                    "at",
                    format!("{at}: variant \"{name}\" makes {made} {noun}, expected at most that"),
                ));
            }
        }
        Ok(Expectation { of, at, holds })
    }

    fn condition(&self, raw: &RawExpectation) -> Result<Condition, Fault> {
        let kinds = [raw.ascending.is_some(), raw.variant.is_some(), raw.same.is_some()];
        if kinds.iter().filter(|is| **is).count() != 1 {
            let message = "expected one of ascending = [..], variant = \"..\" with above or below, and same = [..]";
            return Err(Fault::whole(message));
        }
        for (key, given, of, fits) in [
            ("factor", raw.factor.is_some(), "ascending", kinds[0]),
            ("margin", raw.margin.is_some(), "ascending", kinds[0]),
            ("above", raw.above.is_some(), "variant", kinds[1]),
            ("below", raw.below.is_some(), "variant", kinds[1]),
            ("within", raw.within.is_some(), "same", kinds[2]),
        ] {
            if given && !fits {
                return Err(Fault::at(key, format!("{key} belongs to {of}; remove it")));
            }
        }
        let at_least = |key: &'static str, value: Option<f64>, least: f64| match value.unwrap_or(least) {
            value if value >= least && value.is_finite() => Ok(value),
            value => {
                let message = format!("{key} = {}, expected a number, at least {}", number(value), number(least));
                Err(Fault::at(key, message))
            }
        };
        let two = |key: &'static str, variants: Vec<usize>| match variants.len() {
            1 => Err(Fault::at(key, format!("{key} has one variant, expected at least two"))),
            _ => Ok(variants),
        };
        if let Some(names) = &raw.ascending {
            let variants = two("ascending", self.chosen("ascending", Some(names))?)?;
            let (factor, margin) = (at_least("factor", raw.factor, 1.0)?, at_least("margin", raw.margin, 0.0)?);
            return Ok(Condition::Ascending { variants, factor, margin });
        }
        if let Some(names) = &raw.same {
            let variants = two("same", self.chosen("same", Some(names))?)?;
            return Ok(Condition::Same { variants, within: at_least("within", raw.within, 0.0)? });
        }
        let variant = self.names.find("variant", raw.variant.as_deref().unwrap_or_default())?;
        let (above, below) = (raw.above, raw.below);
        for (key, bound) in [("above", above), ("below", below)] {
            if bound.is_some_and(f64::is_nan) {
                return Err(Fault::at(key, format!("{key} = nan, expected a number")));
            }
        }
        match (above, below) {
            (None, None) => Err(Fault::at("variant", "variant needs a bound: write above = .. or below = ..")),
            (Some(low), Some(high)) if low >= high => {
                let message =
                    format!("above = {} and below = {}, expected the first to be lower", number(low), number(high));
                Err(Fault::at("above", message))
            }
            _ => Ok(Condition::Bounds { variant, above, below }),
        }
    }
}

/// Returns the fault of a name that is none of the known ones.
fn unknown(key: &'static str, name: &str, known: &[&str]) -> Fault {
    let near = suggest(name, known.iter().copied());
    Fault::at(key, format!("{key} = {name:?}{near}, expected one of: {}", known.join(", ")))
}

fn outline(job: &Job) -> Outline {
    let evaluates = match job.config.train.evaluate {
        Every::Never => Vec::new(),
        _ => {
            let validation = (job.config.data.validation > 0.0).then_some(MeasuredSet::Validation);
            validation.into_iter().chain(job.test.map(|_| MeasuredSet::Test)).collect()
        }
    };
    Outline {
        steps: job.steps(),
        epoch: job.epoch(),
        metrics: job.network.results().map(|(name, kind)| (name.to_string(), kind)).collect(),
        evaluates,
        weights: job.network.num_parameters(),
    }
}
