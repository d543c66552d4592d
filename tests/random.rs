//! Seeded random numbers: SplitMix64, so that every case has the same inputs everywhere.

/// A generator.
pub struct Random(u64);

impl Random {
    /// A generator whose numbers depend on `name` alone.
    pub fn named(name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        Random(hash)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// Uniform in `lo..hi`.
    pub fn uniform(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Close to standard normal: the sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f32 {
        (0..6)
            .map(|_| {
                let bits = self.bits();
                ((bits >> 40) + (bits << 32 >> 40)) as f32 / (1u32 << 24) as f32
            })
            .sum::<f32>()
            - 6.0
    }
}
