//! Amounts of resources: what a task asks for, what a worker has, and the one predicate that compares them.

use proto::v1::{Capacity, Resources};

/// What one task needs, or what a worker has, or has left. Ordered only so that it can be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Shape {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub scratch_gib: u64,
    pub gpus: u32,
}

/// One of the resources that can be short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Cpu,
    Memory,
    Gpu,
    Scratch,
}

impl Resource {
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Gpu, Self::Scratch];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Gpu => "gpus",
            Self::Scratch => "scratch",
        }
    }

    /// An amount of it for people, with its unit.
    pub fn amount(self, amount: u64) -> String {
        match self {
            Self::Cpu if amount.is_multiple_of(1000) => format!("{}", amount / 1000),
            Self::Cpu => format!("{}.{}", amount / 1000, format!("{:03}", amount % 1000).trim_end_matches('0')),
            Self::Memory if amount > 0 && amount.is_multiple_of(1024) => format!("{} GiB", amount / 1024),
            Self::Memory => format!("{amount} MiB"),
            Self::Gpu => format!("{amount}"),
            Self::Scratch => format!("{amount} GiB"),
        }
    }
}

impl Shape {
    pub fn amount(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu_milli,
            Resource::Memory => self.memory_mib,
            Resource::Gpu => u64::from(self.gpus),
            Resource::Scratch => self.scratch_gib,
        }
    }

    /// **The** predicate: whether a task of this shape fits where so much is free. Grants, plans and
    /// explanations all ask here.
    pub fn fits(&self, free: &Self) -> bool {
        self.cpu_milli <= free.cpu_milli
            && self.memory_mib <= free.memory_mib
            && self.gpus <= free.gpus
            && self.scratch_gib <= free.scratch_gib
    }

    /// The resources for which [`Self::fits`] says no.
    pub fn lacking(&self, free: &Self) -> impl Iterator<Item = Resource> {
        let (asked, free) = (*self, *free);
        Resource::ALL.into_iter().filter(move |resource| asked.amount(*resource) > free.amount(*resource))
    }

    /// How many tasks of this shape fit into `free` together.
    pub fn times(&self, free: &Self) -> u64 {
        Resource::ALL
            .into_iter()
            .filter(|resource| self.amount(*resource) > 0)
            .map(|resource| free.amount(resource) / self.amount(resource))
            .min()
            .unwrap_or(u64::MAX)
    }

    pub fn add(&mut self, other: &Self) {
        self.cpu_milli += other.cpu_milli;
        self.memory_mib += other.memory_mib;
        self.scratch_gib += other.scratch_gib;
        self.gpus += other.gpus;
    }

    /// Panics when there isn't so much: then the accounts are wrong.
    pub fn subtract(&mut self, other: &Self) {
        assert!(other.fits(self), "more is given back than was taken: {other:?} of {self:?}");
        self.cpu_milli -= other.cpu_milli;
        self.memory_mib -= other.memory_mib;
        self.scratch_gib -= other.scratch_gib;
        self.gpus -= other.gpus;
    }

    /// What is left of this when `used` is taken; nothing below zero.
    pub fn less(&self, used: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(used.cpu_milli),
            memory_mib: self.memory_mib.saturating_sub(used.memory_mib),
            scratch_gib: self.scratch_gib.saturating_sub(used.scratch_gib),
            gpus: self.gpus.saturating_sub(used.gpus),
        }
    }

    /// For people: every resource that isn't zero.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = Resource::ALL
            .into_iter()
            .filter(|resource| self.amount(*resource) > 0)
            .map(|resource| format!("{} {}", resource.name(), resource.amount(self.amount(resource))))
            .collect();
        parts.join(", ")
    }
}

impl From<&Resources> for Shape {
    fn from(asked: &Resources) -> Self {
        Self {
            cpu_milli: asked.cpu_milli,
            memory_mib: asked.memory_mib,
            scratch_gib: asked.scratch_gib,
            gpus: asked.gpus,
        }
    }
}

impl From<&Capacity> for Shape {
    fn from(has: &Capacity) -> Self {
        Self { cpu_milli: has.cpu_milli, memory_mib: has.memory_mib, scratch_gib: has.scratch_gib, gpus: has.gpus }
    }
}

impl From<Shape> for Resources {
    fn from(shape: Shape) -> Self {
        Self {
            cpu_milli: shape.cpu_milli,
            memory_mib: shape.memory_mib,
            gpus: shape.gpus,
            scratch_gib: shape.scratch_gib,
        }
    }
}

impl From<Shape> for Capacity {
    fn from(shape: Shape) -> Self {
        Self {
            cpu_milli: shape.cpu_milli,
            memory_mib: shape.memory_mib,
            gpus: shape.gpus,
            scratch_gib: shape.scratch_gib,
        }
    }
}
