/** What a reader of one of our SVG pictures could not read: texts on each other, under a shape, or past an edge. */

interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

interface Drawn extends Box {
  /** Undefined: a shape that hides what is below it. */
  readonly text: string | undefined;
}

type Attributes = Readonly<Record<string, string>>;

/** Of DejaVu Sans, per em: the widest font that a `system-ui` usually is. */
const widths: readonly (readonly [letters: RegExp, width: number])[] = [
  [/[ijl|.,:' ]/, 0.32],
  [/[frt()-]/, 0.4],
  [/[mwMW%×]/, 0.92],
  [/[A-Z]/, 0.68],
];

export function unreadableTexts(svg: string): readonly string[] {
  const drawn = boxesOf(svg);
  const [width = '0', height = '0'] =
    /^<svg [^>]*width="(\d+)" height="(\d+)"/.exec(svg)?.slice(1) ?? [];
  const problems: string[] = [];
  for (const [index, one] of drawn.entries()) {
    if (one.text === undefined) continue;
    const isOutside =
      one.left < 0 || one.top < 0 || one.right > Number(width) || one.bottom > Number(height);
    if (isOutside) problems.push(`"${one.text}" leaves the picture`);
    for (const other of drawn.slice(index + 1)) {
      if (!meet(one, other)) continue;
      problems.push(
        `"${one.text}" meets ${other.text === undefined ? 'a shape over it' : `"${other.text}"`}`,
      );
    }
  }
  return problems;
}

function boxesOf(svg: string): readonly Drawn[] {
  const drawn: Drawn[] = [];
  const shifts: (readonly [x: number, y: number])[] = [];
  for (const [, tag = '', rest = '', content = ''] of svg.matchAll(
    /<(\/?g|text|rect)\b([^>]*)>(?:([^<]*)<\/text>)?/g,
  )) {
    const attributes: Attributes = Object.fromEntries(
      [...rest.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key = '', value = '']) => [key, value]),
    );
    if (tag === '/g') shifts.pop();
    else if (tag === 'g') shifts.push(shiftOf(attributes));
    else {
      const box = tag === 'text' ? textBox(attributes, content) : rectBox(attributes);
      const x = shifts.reduce((sum, [each]) => sum + each, 0);
      const y = shifts.reduce((sum, [, each]) => sum + each, 0);
      drawn.push({
        text: tag === 'text' ? content : undefined,
        ...{ left: box.left + x, right: box.right + x },
        ...{ top: box.top + y, bottom: box.bottom + y },
      });
    }
  }
  return drawn;
}

function shiftOf({ transform = '' }: Attributes): readonly [number, number] {
  const [, x = 0, y = 0] = /^translate\(([\d.]+) ([\d.]+)\)$/.exec(transform) ?? [];
  return [Number(x), Number(y)];
}

function rectBox({ x = '0', y = '0', width = '0', height = '0' }: Attributes): Box {
  const [left, top] = [Number(x), Number(y)];
  return { left, top, right: left + Number(width), bottom: top + Number(height) };
}

/** Turned by a quarter to the left, or not at all. */
function textBox(attributes: Attributes, content: string): Box {
  const [x, y, size] = [attributes['x'], attributes['y'], attributes['font-size'] ?? 12].map(
    Number,
  );
  if (x === undefined || y === undefined || size === undefined) throw new TypeError(content);
  const width = widthOf(content, attributes) * size;
  const shift =
    { start: 0, middle: width / 2, end: width }[attributes['text-anchor'] ?? 'start'] ?? 0;
  // Digits and capitals; what hangs below the baseline is less than a line's own room.
  const rise = size * 0.72;
  if (attributes['transform']?.startsWith('rotate(-90 ') === true) {
    return { left: x - rise, right: x, top: y - width, bottom: y };
  }
  return { left: x - shift, right: x - shift + width, top: y - rise, bottom: y };
}

function widthOf(content: string, attributes: Attributes): number {
  const letters = content.replaceAll(/&\w+;/g, '&').split('');
  const plain = letters.reduce(
    (sum, letter) => sum + (widths.find(([which]) => which.test(letter))?.[1] ?? 0.62),
    0,
  );
  return attributes['font-weight'] === '600' ? plain * 1.1 : plain;
}

function meet(one: Box, other: Box): boolean {
  return (
    one.left < other.right &&
    other.left < one.right &&
    one.top < other.bottom &&
    other.top < one.bottom
  );
}
