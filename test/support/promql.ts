// What of PromQL the dashboard uses, read strictly: whatever is not of this grammar is an error. Of each query it finds
// the unit, by Prometheus's conventions for names of metrics, and the labels that its series have. Grammar:
// prometheus.io/docs/prometheus/latest/querying/basics.

/** Exponents of base units; without any, a number or a share. */
export type Unit = Readonly<Record<"seconds" | "bytes" | "pages", number>>;

export interface Series {
  readonly unit: Unit;
  /** One of the same by the same, or a metric that says so itself: what percents are for. */
  readonly isShare: boolean;
  readonly labels: ReadonlySet<string>;
}

export interface MetricFacts {
  readonly type: "counter" | "gauge" | "histogram";
  readonly labels: readonly string[];
}

interface Value extends Series {
  /** Over time, as rate() needs it. */
  readonly isRange?: true;
  /** Grows for ever, and means nothing before rate() or increase(). */
  readonly isCounter?: true;
}

const NONE: Unit = { seconds: 0, bytes: 0, pages: 0 };
/** The only number that has a unit. */
const PAGE_BYTES = "4096";
const TOKEN =
  /\s*(?:([a-zA-Z_][a-zA-Z0-9_]*)|([0-9]+(?:\.[0-9]+)?)|("(?:[^"\\]|\\.)*")|(=~|!~|!=|[-+*/(){}[\],=]|\$__\w+))/y;
const DURATION = /^(\d+[smhdw]|\$__rate_interval|\$__range|\$__interval)$/;
const AGGREGATIONS: ReadonlySet<string> = new Set(["sum", "max", "min", "avg", "count"]);

export function readQuery(text: string, metrics: ReadonlyMap<string, MetricFacts>): Series {
  const reader = new Reader(text, metrics);
  const value = reader.expression();
  reader.end();
  if (value.isRange || value.isCounter) throw new Error(`${text}: a counter or a range as it is`);
  return value;
}

/** Of `name`, with the suffix that a counter or a part of a histogram has. */
function unitOf(name: string): Pick<Series, "unit" | "isShare"> {
  const bare = name.replace(/_(total|bucket|sum)$/, "");
  const unit = (changes: Partial<Unit>) => ({ unit: { ...NONE, ...changes }, isShare: false });
  if (name.endsWith("_count")) return unit({});
  if (bare.endsWith("_bytes_per_second")) return unit({ bytes: 1, seconds: -1 });
  if (bare.endsWith("_pages_per_second")) return unit({ pages: 1, seconds: -1 });
  if (bare.endsWith("_seconds")) return unit({ seconds: 1 });
  if (bare.endsWith("_bytes")) return unit({ bytes: 1 });
  return { unit: NONE, isShare: bare.endsWith("_ratio") };
}

const join = (a: Unit, b: Unit, sign: 1 | -1): Unit => ({
  seconds: a.seconds + sign * b.seconds,
  bytes: a.bytes + sign * b.bytes,
  pages: a.pages + sign * b.pages,
});
export const isSameUnit = (a: Unit, b: Unit): boolean =>
  Object.values(join(a, b, -1)).every((exponent) => exponent === 0);

class Reader {
  readonly #tokens: string[] = [];
  readonly #text: string;
  readonly #metrics: ReadonlyMap<string, MetricFacts>;
  #at = 0;

  constructor(text: string, metrics: ReadonlyMap<string, MetricFacts>) {
    this.#text = text;
    this.#metrics = metrics;
    // A duration is one word in brackets, and the only thing there.
    for (const [index, part] of text.split(/\[([^\]]*)\]/).entries()) {
      if (index % 2 === 1) this.#tokens.push(`[${part}]`);
      else this.#tokens.push(...tokensOf(part, text));
    }
  }

  expression(): Value {
    let left = this.#term();
    for (let sign = this.#peek(); sign !== undefined && "+-*/".includes(sign); sign = this.#peek()) {
      this.#at++;
      left = this.#joined(left, sign, this.#term());
    }
    return left;
  }

  end(): void {
    if (this.#peek() !== undefined) this.#fail(`"${this.#peek()}" is too much`);
  }

  #joined(left: Value, sign: string, right: Value): Value {
    for (const each of [left, right])
      if (each.isCounter || each.isRange) this.#fail("a counter is reckoned with");
    const labels = new Set(
      [...left.labels].filter((label) => right.labels.size === 0 || right.labels.has(label)),
    );
    if (sign === "*") return { unit: join(left.unit, right.unit, 1), isShare: false, labels };
    if (sign === "/") {
      const isShare = isSameUnit(left.unit, right.unit);
      // An average of shares is one; so is one of a kind by the same kind.
      return { unit: join(left.unit, right.unit, -1), isShare: isShare || left.isShare, labels };
    }
    if (!isSameUnit(left.unit, right.unit)) this.#fail(`what is joined by ${sign} is not of one kind`);
    return { unit: left.unit, isShare: left.isShare, labels };
  }

  #term(): Value {
    const token = this.#next();
    if (token === "(") {
      const inner = this.expression();
      this.#expect(")");
      return inner;
    }
    if (/^\d/.test(token)) {
      const unit = token === PAGE_BYTES ? { ...NONE, bytes: 1, pages: -1 } : NONE;
      return { unit, isShare: false, labels: new Set() };
    }
    if (AGGREGATIONS.has(token)) return this.#aggregation(token);
    if (token === "rate" || token === "increase") return this.#overTime(token);
    if (token === "histogram_quantile") return this.#quantile();
    return this.#selector(token);
  }

  #aggregation(token: string): Value {
    const by = this.#peek() === "by" ? this.#labels() : [];
    this.#expect("(");
    const inner = this.expression();
    this.#expect(")");
    if (inner.isCounter || inner.isRange) this.#fail("a counter is summed up before its rate");
    for (const label of by) if (!inner.labels.has(label)) this.#fail(`nothing has the label ${label}`);
    if (token === "count") return { unit: NONE, isShare: false, labels: new Set(by) };
    return { unit: inner.unit, isShare: inner.isShare, labels: new Set(by) };
  }

  #labels(): string[] {
    this.#at++;
    this.#expect("(");
    const labels = [this.#next()];
    while (this.#peek() === ",") {
      this.#at++;
      labels.push(this.#next());
    }
    this.#expect(")");
    return labels;
  }

  #overTime(token: string): Value {
    this.#expect("(");
    const inner = this.expression();
    this.#expect(")");
    if (!inner.isRange || !inner.isCounter) this.#fail(`${token} is of a counter over time`);
    const unit = token === "rate" ? join(inner.unit, { ...NONE, seconds: 1 }, -1) : inner.unit;
    return { unit, isShare: inner.isShare, labels: inner.labels };
  }

  #quantile(): Value {
    this.#expect("(");
    const quantile = Number(this.#next());
    if (!(quantile > 0 && quantile < 1)) this.#fail(`${quantile} is no quantile`);
    this.#expect(",");
    const inner = this.expression();
    this.#expect(")");
    if (!inner.labels.has("le")) this.#fail("a quantile needs the buckets' bounds (le)");
    const labels = new Set(inner.labels);
    labels.delete("le");
    return { unit: inner.unit, isShare: inner.isShare, labels };
  }

  #selector(name: string): Value {
    const facts = this.#metrics.get(name);
    if (facts === undefined) return this.#fail(`there is no metric ${name}`);
    const labels = new Set([...facts.labels, "instance", "job"]);
    this.#expect("{");
    for (let more = true; more; ) {
      const label = this.#next();
      if (!labels.has(label)) this.#fail(`${name} has no label ${label}`);
      if (!["=", "!=", "=~", "!~"].includes(this.#next())) this.#fail(`no comparison of ${label}`);
      if (!this.#next().startsWith('"')) this.#fail(`${label} is compared to what is no string`);
      more = this.#peek() === ",";
      if (more) this.#at++;
    }
    this.#expect("}");
    if (name.endsWith("_bucket")) labels.add("le");
    const range = this.#peek();
    const isRange = range?.startsWith("[") === true;
    if (isRange) {
      this.#at++;
      if (!DURATION.test(range!.slice(1, -1))) this.#fail(`${range} is no duration`);
    }
    const isCounter = facts.type !== "gauge";
    return {
      ...unitOf(name),
      labels,
      ...(isRange ? { isRange } : {}),
      ...(isCounter ? { isCounter } : {}),
    };
  }

  #peek(): string | undefined {
    return this.#tokens[this.#at];
  }

  #next(): string {
    const token = this.#tokens[this.#at++];
    return token ?? this.#fail("it ends too soon");
  }

  #expect(token: string): void {
    const got = this.#next();
    if (got !== token) this.#fail(`"${token}" is missing before "${got}"`);
  }

  #fail(why: string): never {
    throw new Error(`${this.#text}: ${why}`);
  }
}

function tokensOf(part: string, text: string): string[] {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (part.slice(TOKEN.lastIndex).trim() !== "") {
    const from = TOKEN.lastIndex;
    const token = TOKEN.exec(part)?.[0];
    if (token === undefined) throw new Error(`${text}: not PromQL at "${part.slice(from)}"`);
    tokens.push(token.trim());
  }
  return tokens;
}
