/** Elements of an SVG as text. Pure; every text and attribute is escaped. */

export type Attributes = Readonly<Record<string, string | number>>;

export function element(name: string, attributes: Attributes, ...children: string[]): string {
  const written = Object.entries(attributes)
    .map(
      ([key, value]) => ` ${key}="${escapeXml(typeof value === 'number' ? round(value) : value)}"`,
    )
    .join('');
  const body = children.join('');
  return body === '' ? `<${name}${written}/>` : `<${name}${written}>${body}</${name}>`;
}

export function text(x: number, y: number, content: string, more: Attributes = {}): string {
  return element('text', { x, y, ...more }, escapeXml(content));
}

/**
 * Estimated from the average of DejaVu Sans, the widest font that a `system-ui` usually is; names
 * are in mixed case, numbers in its digits.
 */
export function textWidth(content: string, fontSize: number, isBold = false): number {
  return content.length * fontSize * (isBold ? 0.7 : 0.62);
}

/** A whole picture, on white whatever the page's color. */
export function picture(width: number, height: number, title: string, parts: readonly string[]) {
  const attributes = {
    xmlns: 'http://www.w3.org/2000/svg',
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: 'img',
    'font-family': 'system-ui, sans-serif',
    'font-size': 12,
    fill: '#333',
  };
  const ground = element('rect', { width, height, fill: '#fff' });
  return `${element('svg', attributes, `<title>${escapeXml(title)}</title>\n`, ground, `\n${parts.join('\n')}\n`)}\n`;
}

function escapeXml(content: string): string {
  return content
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

function round(value: number): string {
  return String(Math.round(value * 10) / 10);
}
