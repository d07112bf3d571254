//! The time that series cover, and its steps.

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;
/// The most steps of a window. A series has eight bytes or more for each.
pub const MAX_STEPS: u64 = 100_000;

/// The time that series cover, in nanoseconds since 1970: one sample for each step, or one in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    start_ns: u64,
    end_ns: u64,
    /// The whole window for an instant query.
    step_ns: u64,
    instant: bool,
}

/// Why there is no such window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It ends before it starts.
    #[error("the end of a time range is after its start")]
    Empty,
    /// Steps of no time.
    #[error("a step is longer than 0")]
    NoStep,
    /// Too many steps.
    #[error("a time range has at most {MAX_STEPS} steps, not {steps}: a longer step is needed")]
    TooManySteps {
        /// How many it would have.
        steps: u64,
    },
}

impl Window {
    /// The window of a range query: samples at the multiples of `step_ns` from the last one not after
    /// `start_ns` to the first one not before `end_ns`. A sample is about the time since the one before, as
    /// in Tempo.
    pub fn range(start_ns: u64, end_ns: u64, step_ns: u64) -> Result<Self, WindowError> {
        if step_ns == 0 {
            return Err(WindowError::NoStep);
        }
        if end_ns <= start_ns {
            return Err(WindowError::Empty);
        }
        let first = start_ns - start_ns % step_ns;
        let window = Self {
            start_ns: first.saturating_sub(step_ns),
            end_ns: end_ns.div_ceil(step_ns).saturating_mul(step_ns),
            step_ns,
            instant: false,
        };
        let steps = (window.end_ns - window.start_ns) / step_ns;
        if steps > MAX_STEPS {
            return Err(WindowError::TooManySteps { steps });
        }
        Ok(window)
    }

    /// The window of an instant query: one sample about all of it.
    pub fn instant(start_ns: u64, end_ns: u64) -> Result<Self, WindowError> {
        if end_ns <= start_ns {
            return Err(WindowError::Empty);
        }
        Ok(Self {
            start_ns,
            end_ns,
            step_ns: end_ns - start_ns,
            instant: true,
        })
    }

    /// The step of a range query that says none, in nanoseconds: about 240 of them, rounded down to a
    /// multiple of 1 h, 5 min, 1 min, 15 s, 5 s or 1 s, and below a minute of 50 ms.
    pub fn default_step_ns(start_ns: u64, end_ns: u64) -> u64 {
        let range = end_ns.saturating_sub(start_ns);
        let about = range / 240;
        if range < 60 * NS_PER_S {
            let grain = 50 * NS_PER_MS;
            return (about / grain * grain).max(grain);
        }
        [3_600, 300, 60, 15, 5, 1]
            .map(|seconds| seconds * NS_PER_S)
            .into_iter()
            .find(|grain| about > *grain)
            .map_or(NS_PER_S, |grain| about / grain * grain)
    }

    /// Spans that start at this time or before, in nanoseconds since 1970, are not in the window.
    pub fn after_ns(&self) -> u64 {
        self.start_ns
    }

    /// The last nanosecond of the window.
    pub fn until_ns(&self) -> u64 {
        self.end_ns
    }

    /// How long a step is, in nanoseconds.
    pub fn step_ns(&self) -> u64 {
        self.step_ns
    }

    /// Whether there is one sample in all.
    pub fn is_instant(&self) -> bool {
        self.instant
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        usize::try_from((self.end_ns - self.start_ns) / self.step_ns.max(1)).unwrap_or(0)
    }

    /// The step of a span that starts at `time_ns`; each has its end, but not its start.
    pub fn step_of(&self, time_ns: u64) -> Option<usize> {
        if time_ns <= self.start_ns || time_ns > self.end_ns {
            return None;
        }
        let step = (time_ns - self.start_ns - 1) / self.step_ns.max(1);
        usize::try_from(step)
            .ok()
            .filter(|step| *step < self.steps())
    }

    /// When the sample of a step is, in milliseconds since 1970.
    pub fn timestamp_ms(&self, step: usize) -> i64 {
        let step = u64::try_from(step).unwrap_or(u64::MAX).saturating_add(1);
        let ns = self
            .start_ns
            .saturating_add(self.step_ns.saturating_mul(step));
        i64::try_from(ns / NS_PER_MS).unwrap_or(i64::MAX)
    }

    /// How long a step is, in seconds.
    #[allow(clippy::cast_precision_loss)] // rates are floats
    pub(crate) fn step_seconds(&self) -> f64 {
        self.step_ns as f64 / NS_PER_S as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_at_multiples_of_the_step() {
        let s = NS_PER_S;
        let window = Window::range(1_795_240_765 * s, 1_795_240_945 * s, 30 * s).unwrap();
        assert_eq!(window.steps(), 8);
        assert_eq!(window.timestamp_ms(0), 1_795_240_740_000);
        assert_eq!(window.timestamp_ms(7), 1_795_240_950_000);
        assert_eq!(window.step_of(1_795_240_710 * s), None);
        assert_eq!(window.step_of(1_795_240_710 * s + 1), Some(0));
        assert_eq!(window.step_of(1_795_240_740 * s), Some(0));
        assert_eq!(window.step_of(1_795_240_740 * s + 1), Some(1));
        assert_eq!(window.step_of(1_795_240_950 * s), Some(7));
        assert_eq!(window.step_of(1_795_240_950 * s + 1), None);
        let early = Window::range(1, 90 * s, 60 * s).unwrap();
        assert_eq!((early.steps(), early.timestamp_ms(0)), (2, 60_000));
    }

    #[test]
    fn an_instant_is_one_step() {
        let window = Window::instant(10, 200).unwrap();
        assert_eq!(
            (window.steps(), window.step_of(10), window.step_of(11)),
            (1, None, Some(0))
        );
        assert_eq!((window.step_of(200), window.step_of(201)), (Some(0), None));
    }

    #[test]
    fn default_steps() {
        let s = NS_PER_S;
        for (range, step) in [
            (3_600 * s, 15 * s),
            (2 * 3_600 * s, 30 * s),
            (24 * 3_600 * s, 360 * s - 60 * s),
            (300 * s, s),
            (60 * s, s),
            (30 * s, 100 * NS_PER_MS),
            (s, 50 * NS_PER_MS),
        ] {
            assert_eq!(Window::default_step_ns(5, 5 + range), step, "{range}");
        }
    }

    #[test]
    fn no_such_window() {
        assert_eq!(Window::range(5, 5, 1), Err(WindowError::Empty));
        assert_eq!(Window::instant(5, 4), Err(WindowError::Empty));
        assert_eq!(Window::range(5, 6, 0), Err(WindowError::NoStep));
        assert!(Window::range(0, u64::MAX, 1).is_err());
        assert!(Window::range(u64::MAX - 1, u64::MAX, u64::MAX / 2).is_ok());
    }
}
