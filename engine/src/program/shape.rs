//! Shapes of results: what [`Op`]'s contracts demand of inputs, checked when a step is appended.

use super::op::{DType, MAX_INS, Mask, Op};

/// Shape and dtype of a value, as operations see it.
pub type Typed<'a> = (&'a [usize], DType);

fn fail<T>(what: impl Into<String>) -> Result<T, String> {
    Err(what.into())
}

fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(0)
}

fn with_last(shape: &[usize], n: usize) -> Vec<usize> {
    let mut out = shape.to_vec();
    if let Some(l) = out.last_mut() {
        *l = n;
    }
    out
}

fn rank(x: Typed, r: usize, name: &str) -> Result<(), String> {
    if x.0.len() == r {
        Ok(())
    } else {
        fail(format!("{name} must have {r} axes, has {:?}", x.0))
    }
}

fn exact(x: Typed, want: &[usize], name: &str) -> Result<(), String> {
    if x.0 == want {
        Ok(())
    } else {
        fail(format!("{name} must be {want:?}, is {:?}", x.0))
    }
}

fn arity(ins: &[Typed], allowed: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    if allowed.contains(&ins.len()) {
        Ok(())
    } else {
        fail(format!("takes {allowed:?} inputs, was given {}", ins.len()))
    }
}

impl Op {
    /// Output shape and dtype for the given inputs, or what is wrong with them.
    pub fn shape(&self, ins: &[Typed]) -> Result<(Vec<usize>, DType), String> {
        if let Some((i, _)) = ins.iter().enumerate().find(|(_, x)| x.0.contains(&0)) {
            return fail(format!("input {i} is empty: {:?}", ins[i].0));
        }
        self.check_dtypes(ins)?;
        let shape = match self {
            Op::Reshape => return fail("reshape is appended by Builder::reshape"),
            Op::ConcatChannels
            | Op::ConcatRows
            | Op::SliceRows { .. }
            | Op::PadRows { .. }
            | Op::SelectRow { .. }
            | Op::SelectSlab { .. }
            | Op::PrependRow
            | Op::RepeatAdd
            | Op::Embed
            | Op::WriteRows => self.shape_moving(ins)?,
            Op::Linear
            | Op::SwiGlu
            | Op::RmsNorm { .. }
            | Op::Rope
            | Op::NormRope { .. }
            | Op::Attention { .. }
            | Op::AttentionWeights { .. }
            | Op::TimeSinusoid { .. }
            | Op::FsqEncode { .. }
            | Op::FsqDecode { .. } => self.shape_network(ins)?,
            Op::Conv1d { .. }
            | Op::ConvTranspose1d { .. }
            | Op::SnakeConv1d { .. }
            | Op::SnakeConvTranspose1d { .. } => self.shape_conv(ins)?,
            _ => self.shape_elementwise(ins)?,
        };
        let dtype = match self {
            Op::FsqEncode { .. } => DType::I32,
            Op::WriteRows => ins[0].1,
            _ => DType::F32,
        };
        Ok((shape, dtype))
    }

    fn check_dtypes(&self, ins: &[Typed]) -> Result<(), String> {
        for (i, (_, dtype)) in ins.iter().enumerate() {
            let ids = matches!((self, i), (Op::Embed | Op::FsqDecode { .. }, 0))
                || matches!(
                    (self, i),
                    (Op::Attention { .. }, 3) | (Op::AttentionWeights { .. } | Op::WriteRows, 2)
                );
            let kept = matches!(
                (self, i),
                (Op::Attention { .. }, 1 | 2)
                    | (Op::AttentionWeights { .. }, 1)
                    | (Op::WriteRows, 0 | 1)
            );
            let ok = match dtype {
                DType::I32 => ids,
                DType::F32 => !ids,
                DType::BF16 => kept || self.weight_inputs().contains(&i),
                DType::F16 => self.weight_inputs().contains(&i),
            };
            if !ok {
                return fail(format!("input {i} may not be {dtype:?}"));
            }
        }
        match (self, ins) {
            (Op::Attention { .. }, [_, k, v, ..]) if k.1 != v.1 => {
                fail("keys and values must be of one dtype")
            }
            (Op::WriteRows, [(_, DType::F32), (_, DType::BF16), ..]) => {
                fail("rows of bf16 do not belong into a cache of f32")
            }
            _ => Ok(()),
        }
    }

    fn shape_moving(&self, ins: &[Typed]) -> Result<Vec<usize>, String> {
        match self {
            Op::ConcatChannels => {
                arity(ins, 1..=MAX_INS)?;
                let lead = &ins[0].0[..ins[0].0.len() - 1];
                for (i, x) in ins.iter().enumerate() {
                    if &x.0[..x.0.len() - 1] != lead {
                        return fail(format!("input {i} {:?} differs in its leading axes", x.0));
                    }
                }
                Ok(with_last(ins[0].0, ins.iter().map(|x| last(x.0)).sum()))
            }
            Op::ConcatRows => {
                arity(ins, 1..=MAX_INS)?;
                for x in ins {
                    rank(*x, 3, "input")?;
                    if x.0[0] != ins[0].0[0] || x.0[2] != ins[0].0[2] {
                        return fail(format!("{:?} does not fit beside {:?}", x.0, ins[0].0));
                    }
                }
                Ok(vec![
                    ins[0].0[0],
                    ins.iter().map(|x| x.0[1]).sum(),
                    ins[0].0[2],
                ])
            }
            Op::SliceRows { start, len } => {
                arity(ins, 1..=1)?;
                rank(ins[0], 3, "x")?;
                if *len == 0 || start + len > ins[0].0[1] {
                    return fail(format!("rows {start}..{} of {:?}", start + len, ins[0].0));
                }
                Ok(vec![ins[0].0[0], *len, ins[0].0[2]])
            }
            Op::PadRows { rows } => {
                arity(ins, 1..=1)?;
                rank(ins[0], 3, "x")?;
                Ok(vec![ins[0].0[0], ins[0].0[1] + rows, ins[0].0[2]])
            }
            Op::SelectRow { rows, .. } => {
                arity(ins, 1..=1)?;
                rank(ins[0], 2, "table")?;
                Ok(vec![*rows, ins[0].0[1]])
            }
            Op::SelectSlab { .. } => {
                arity(ins, 1..=1)?;
                if ins[0].0.len() < 2 {
                    return fail("x needs at least two axes");
                }
                Ok(ins[0].0[1..].to_vec())
            }
            Op::PrependRow => {
                arity(ins, 2..=2)?;
                rank(ins[0], 3, "x")?;
                exact(ins[1], &[ins[0].0[2]], "token")?;
                Ok(vec![ins[0].0[0], ins[0].0[1] + 1, ins[0].0[2]])
            }
            Op::RepeatAdd => {
                arity(ins, 2..=2)?;
                rank(ins[0], 2, "x")?;
                rank(ins[1], 2, "pattern")?;
                exact(ins[1], &[ins[1].0[0], ins[0].0[1]], "pattern")?;
                Ok(vec![ins[0].0[0], ins[1].0[0], ins[0].0[1]])
            }
            Op::WriteRows => write_rows_shape(ins),
            _ => {
                arity(ins, 2..=2)?;
                rank(ins[1], 2, "table")?;
                let mut out = ins[0].0.to_vec();
                out.push(ins[1].0[1]);
                Ok(out)
            }
        }
    }

    fn shape_network(&self, ins: &[Typed]) -> Result<Vec<usize>, String> {
        match self {
            Op::Linear | Op::SwiGlu => {
                let glu = matches!(self, Op::SwiGlu);
                arity(ins, if glu { 3..=3 } else { 2..=3 })?;
                rank(ins[1], 2, "W")?;
                let (n, k) = (ins[1].0[0], ins[1].0[1]);
                if last(ins[0].0) != k {
                    return fail(format!("x {:?} does not fit W {:?}", ins[0].0, ins[1].0));
                }
                match ins.get(2) {
                    Some(w) if glu => exact(*w, &[n, k], "Wu")?,
                    Some(b) => exact(*b, &[n], "b")?,
                    None => {}
                }
                Ok(with_last(ins[0].0, n))
            }
            Op::RmsNorm { .. } => {
                arity(ins, 2..=2)?;
                exact(ins[1], &[last(ins[0].0)], "w")?;
                Ok(ins[0].0.to_vec())
            }
            Op::Rope | Op::NormRope { .. } => {
                let norm = matches!(self, Op::NormRope { .. });
                arity(ins, if norm { 4..=4 } else { 3..=3 })?;
                rank(ins[0], 4, "x")?;
                let (t, d) = (ins[0].0[1], ins[0].0[3]);
                if d % 2 != 0 {
                    return fail(format!("head size {d} must be even"));
                }
                if norm {
                    exact(ins[1], &[d], "w")?;
                }
                let (cos, sin) = (ins[ins.len() - 2], ins[ins.len() - 1]);
                let each = [ins[0].0[0], t, d / 2];
                let table = if cos.0.len() == 3 {
                    &each[..]
                } else {
                    &each[1..]
                };
                exact(cos, table, "cos")?;
                exact(sin, table, "sin")?;
                Ok(ins[0].0.to_vec())
            }
            Op::Attention { mask } => attention_shape(mask, ins),
            Op::AttentionWeights { mask, heads } => weights_shape(mask, heads, ins),
            Op::TimeSinusoid { dim } => {
                arity(ins, 1..=1)?;
                rank(ins[0], 1, "t")?;
                if *dim == 0 || dim % 2 != 0 {
                    return fail(format!("width {dim} must be even"));
                }
                Ok(vec![ins[0].0[0], *dim])
            }
            Op::FsqEncode { levels } => {
                arity(ins, 1..=1)?;
                rank(ins[0], 2, "x")?;
                exact(ins[0], &[ins[0].0[0], levels.len()], "x")?;
                Ok(vec![ins[0].0[0]])
            }
            Op::FsqDecode { levels } => {
                arity(ins, 1..=1)?;
                rank(ins[0], 1, "codes")?;
                Ok(vec![ins[0].0[0], levels.len()])
            }
            _ => fail("not a network operation"),
        }
    }

    fn shape_conv(&self, ins: &[Typed]) -> Result<Vec<usize>, String> {
        let snake = matches!(
            self,
            Op::SnakeConv1d { .. } | Op::SnakeConvTranspose1d { .. }
        ) as usize
            * 2;
        arity(ins, 2 + snake..=3 + snake)?;
        rank(ins[0], 3, "x")?;
        let (b, t, c) = (ins[0].0[0], ins[0].0[1], ins[0].0[2]);
        if snake > 0 {
            exact(ins[1], &[c], "alpha")?;
            exact(ins[2], &[c], "beta")?;
        }
        let w = ins[1 + snake];
        rank(w, 3, "W")?;
        let (cout, len) = match *self {
            Op::Conv1d {
                dilation,
                stride,
                pad,
            } => (w.0[0], conv_len(t, w.0[1], dilation, stride, pad)),
            Op::SnakeConv1d { dilation, pad } => (w.0[0], conv_len(t, w.0[1], dilation, 1, pad)),
            Op::ConvTranspose1d { stride, pad } | Op::SnakeConvTranspose1d { stride, pad } => {
                (w.0[1], ((t - 1) * stride + w.0[0]).saturating_sub(2 * pad))
            }
            _ => return fail("not a convolution"),
        };
        if w.0[2] != c {
            return fail(format!("x {:?} does not fit W {:?}", ins[0].0, w.0));
        }
        if let Some(bias) = ins.get(2 + snake) {
            exact(*bias, &[cout], "bias")?;
        }
        if len == 0 {
            return fail(format!(
                "x {:?} is shorter than the kernel {:?}",
                ins[0].0, w.0
            ));
        }
        Ok(vec![b, len, cout])
    }

    fn shape_elementwise(&self, ins: &[Typed]) -> Result<Vec<usize>, String> {
        let x = *ins.first().ok_or("takes inputs")?;
        let same = |i: usize| exact(ins[i], x.0, "every input");
        let rows = |i: usize, name: &str| {
            rank(x, 3, "x")?;
            exact(ins[i], &[x.0[0], x.0[2]], name)
        };
        match self {
            Op::Silu => arity(ins, 1..=1)?,
            Op::Add | Op::Mul | Op::Combine { .. } => {
                arity(ins, 2..=2)?;
                same(1)?;
            }
            Op::AddVector | Op::MulVector => {
                arity(ins, 2..=2)?;
                exact(ins[1], &[last(x.0)], "v")?;
            }
            Op::MulRows => {
                arity(ins, 2..=2)?;
                rows(1, "v")?;
            }
            Op::Modulate => {
                arity(ins, 3..=3)?;
                rows(1, "scale")?;
                rows(2, "shift")?;
            }
            Op::SelectByMask => {
                arity(ins, 3..=3)?;
                rank(ins[1], 3, "a")?;
                exact(x, &ins[1].0[..2], "m")?;
                exact(ins[2], ins[1].0, "b")?;
                return Ok(ins[1].0.to_vec());
            }
            Op::Snake => {
                arity(ins, 3..=3)?;
                exact(ins[1], &[last(x.0)], "alpha")?;
                exact(ins[2], &[last(x.0)], "beta")?;
            }
            Op::Apg { .. } => {
                arity(ins, 3..=3)?;
                rank(x, 3, "c")?;
                same(1)?;
                same(2)?;
                return Ok(vec![2, x.0[0], x.0[1], x.0[2]]);
            }
            Op::Adg { .. } => {
                arity(ins, 3..=3)?;
                rank(x, 3, "x")?;
                same(1)?;
                same(2)?;
            }
            Op::ClampNorm { .. } => {
                arity(ins, 2..=2)?;
                rank(x, 3, "v")?;
                same(1)?;
            }
            Op::Dcw { dcw, .. } => {
                arity(ins, 2..=2)?;
                rank(x, 3, "x")?;
                same(1)?;
                if dcw.filter.len() < 2 || dcw.filter.len() % 2 != 0 {
                    return fail("the wavelet filter must have an even number of taps");
                }
            }
            Op::RmsNormModulate { .. } => {
                arity(ins, 4..=4)?;
                exact(ins[1], &[last(x.0)], "w")?;
                rows(2, "scale")?;
                rows(3, "shift")?;
            }
            Op::GatedAdd => {
                arity(ins, 3..=3)?;
                same(1)?;
                rows(2, "gate")?;
            }
            _ => return fail("not an element-wise operation"),
        }
        Ok(x.0.to_vec())
    }
}

/// Output length of a convolution, 0 when the input is shorter than the kernel.
fn conv_len(t: usize, k: usize, dilation: usize, stride: usize, pad: usize) -> usize {
    let span = dilation * (k - 1) + 1;
    let padded = t + 2 * pad;
    if padded < span || stride == 0 {
        0
    } else {
        (padded - span) / stride + 1
    }
}

fn write_rows_shape(ins: &[Typed]) -> Result<Vec<usize>, String> {
    arity(ins, 3..=3)?;
    let (cache, rows) = (ins[0].0, ins[1].0);
    let fits = cache.len() > 1
        && cache.len() == rows.len()
        && cache[0] == rows[0]
        && cache[1] >= rows[1]
        && cache[2..] == rows[2..];
    if !fits {
        return fail(format!("rows {rows:?} do not fit into {cache:?}"));
    }
    exact(ins[2], &[cache[0]], "at")?;
    Ok(cache.to_vec())
}

fn attention_shape(mask: &Mask, ins: &[Typed]) -> Result<Vec<usize>, String> {
    arity(ins, 3..=4)?;
    for x in &ins[..3] {
        rank(*x, 4, "q, k, v")?;
    }
    exact(ins[2], ins[1].0, "v")?;
    scores_fit(mask, ins[0], ins[1], ins.get(3))?;
    Ok(ins[0].0.to_vec())
}

fn weights_shape(mask: &Mask, heads: &[usize], ins: &[Typed]) -> Result<Vec<usize>, String> {
    arity(ins, 2..=3)?;
    for x in &ins[..2] {
        rank(*x, 4, "q, k")?;
    }
    scores_fit(mask, ins[0], ins[1], ins.get(2))?;
    let (q, k) = (ins[0].0, ins[1].0);
    if heads.is_empty() || heads.iter().any(|head| *head >= q[2]) {
        return fail(format!("heads {heads:?} of {}", q[2]));
    }
    Ok(vec![q[0], heads.len(), q[1], k[1]])
}

/// What attention and its weights ask of queries, keys and lengths alike.
fn scores_fit(mask: &Mask, q: Typed, k: Typed, lengths: Option<&Typed>) -> Result<(), String> {
    let (q, k) = (q.0, k.0);
    if q[0] != k[0] || q[3] != k[3] || q[2] % k[2] != 0 {
        return fail(format!("q {q:?} does not fit k {k:?}"));
    }
    match mask {
        Mask::Causal if k[1] < q[1] => {
            return fail("causal attention needs at least as many keys as queries");
        }
        Mask::Window(_) if k[1] != q[1] => {
            return fail("windowed attention needs as many keys as queries");
        }
        _ => {}
    }
    match lengths {
        Some(l) => exact(*l, &[q[0]], "lengths"),
        None => Ok(()),
    }
}
