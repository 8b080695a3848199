/**
 * Latencies as counts in log-linear buckets, as in HdrHistogram: exact to 0.1 µs up to 25.6 µs, and
 * to 1/128 of the value beyond, up to 3.5 minutes. Recording is a few integer operations and no
 * allocation, so it does not disturb the load.
 *
 *     ticks of 0.1 µs   0 … 255 one bucket each │ 256 … 511 by 2 │ 512 … 1023 by 4 │ …
 */

const ticksPerMs = 10_000;
const exactTicks = 256;
const stepsPerOctave = 128;
const maxTicks = 0x7fff_ffff;
const octaves = 23;
const bucketCount = exactTicks + octaves * stepsPerOctave;

/** The format in files: pairs of (buckets since the last pair, count), laid flat. */
export interface CompactHistogram {
  readonly pairs: readonly number[];
  readonly minUs: number;
  readonly maxUs: number;
  readonly meanUs: number;
}

export class Histogram {
  readonly #counts = new Float64Array(bucketCount);
  #count = 0;
  #minTicks = Infinity;
  #maxTicks = 0;
  #sumTicks = 0;

  get count(): number {
    return this.#count;
  }

  /** 0 while empty. */
  get minUs(): number {
    return this.#count === 0 ? 0 : this.#minTicks / 10;
  }

  get maxUs(): number {
    return this.#maxTicks / 10;
  }

  get meanUs(): number {
    return this.#count === 0 ? 0 : this.#sumTicks / this.#count / 10;
  }

  /** Values below zero are recorded as zero, values beyond the range as its end. */
  recordMs(latencyMs: number): void {
    const ticks = Math.min(maxTicks, Math.max(0, Math.round(latencyMs * ticksPerMs)));
    const bucket = bucketOf(ticks);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#count += 1;
    this.#sumTicks += ticks;
    if (ticks < this.#minTicks) this.#minTicks = ticks;
    if (ticks > this.#maxTicks) this.#maxTicks = ticks;
  }

  /**
   * The latency that `share` (0 to 1) of the records do not exceed, by nearest rank, in µs: the
   * middle of its bucket, limited to the recorded range. 0 while empty.
   */
  percentileUs(share: number): number {
    if (this.#count === 0) return 0;
    const rank = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      seen += this.#counts[bucket] ?? 0;
      if (seen < rank) continue;
      const ticks = Math.min(this.#maxTicks, Math.max(this.#minTicks, middleOf(bucket)));
      return ticks / 10;
    }
    return this.maxUs;
  }

  add(other: Histogram): void {
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      this.#counts[bucket] = (this.#counts[bucket] ?? 0) + (other.#counts[bucket] ?? 0);
    }
    this.#count += other.#count;
    this.#sumTicks += other.#sumTicks;
    this.#minTicks = Math.min(this.#minTicks, other.#minTicks);
    this.#maxTicks = Math.max(this.#maxTicks, other.#maxTicks);
  }

  compact(): CompactHistogram {
    const pairs: number[] = [];
    let last = 0;
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      const count = this.#counts[bucket] ?? 0;
      if (count === 0) continue;
      pairs.push(bucket - last, count);
      last = bucket;
    }
    const meanUs = Math.round(this.meanUs * 10) / 10;
    return { pairs, minUs: this.minUs, maxUs: this.maxUs, meanUs };
  }

  static from(compact: CompactHistogram): Histogram {
    const histogram = new Histogram();
    let bucket = 0;
    for (let index = 0; index < compact.pairs.length; index += 2) {
      bucket += compact.pairs[index] ?? 0;
      const count = compact.pairs[index + 1] ?? 0;
      histogram.#counts[bucket] = count;
      histogram.#count += count;
    }
    if (histogram.#count === 0) return histogram;
    histogram.#minTicks = Math.round(compact.minUs * 10);
    histogram.#maxTicks = Math.round(compact.maxUs * 10);
    histogram.#sumTicks = compact.meanUs * 10 * histogram.#count;
    return histogram;
  }

  static sum(parts: readonly CompactHistogram[]): Histogram {
    const whole = new Histogram();
    for (const part of parts) whole.add(Histogram.from(part));
    return whole;
  }
}

function bucketOf(ticks: number): number {
  if (ticks < exactTicks) return ticks;
  const shift = 24 - Math.clz32(ticks);
  return exactTicks + (shift - 1) * stepsPerOctave + (ticks >>> shift) - stepsPerOctave;
}

function middleOf(bucket: number): number {
  if (bucket < exactTicks) return bucket;
  const step = bucket - exactTicks;
  const shift = Math.floor(step / stepsPerOctave) + 1;
  const low = ((step % stepsPerOctave) + stepsPerOctave) * 2 ** shift;
  return low + (2 ** shift - 1) / 2;
}
