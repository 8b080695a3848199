/** Contents of an image, for scanners and license reviews: CycloneDX 1.6. */

export interface Component {
  readonly name: string;
  readonly version: string;
  /** Package URL, which scanners look up; https://github.com/package-url. */
  readonly purl: string;
  readonly license?: string;
  readonly hash?: { readonly alg: 'SHA-256' | 'SHA-512'; readonly content: string };
}

export interface SbomFacts {
  readonly version: string;
  /** ISO 8601. */
  readonly created: string;
  readonly architecture: string;
}

export function renderSbom(facts: SbomFacts, components: readonly Component[]): string {
  const sorted = components.toSorted((a, b) => (a.purl < b.purl ? -1 : 1));
  const bom = {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      timestamp: facts.created,
      component: {
        type: 'container',
        'bom-ref': 'image',
        name: 'entra-pod-identity',
        version: facts.version,
        properties: [{ name: 'architecture', value: facts.architecture }],
      },
    },
    components: sorted.map(({ name, version, purl, license, hash }) => ({
      type: 'library',
      'bom-ref': purl,
      name,
      version,
      purl,
      ...(license !== undefined && { licenses: [{ expression: license }] }),
      ...(hash !== undefined && { hashes: [hash] }),
    })),
    dependencies: [{ ref: 'image', dependsOn: sorted.map(({ purl }) => purl) }],
  };
  return `${JSON.stringify(bom, undefined, 2)}\n`;
}

/** A package of an npm lock file, by its path in the file. */
export function npmComponent(lock: NpmLock, place: string): Component {
  const entry = lock.packages[place];
  const name = place.replace(/^.*node_modules\//, '');
  if (entry === undefined) throw new Error(`package-lock.json has no ${place}`);
  const { version, license, integrity = '' } = entry;
  const [, sha512] = /^sha512-(\S+)/.exec(integrity) ?? [];
  return {
    name,
    version,
    purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
    ...(license !== undefined && { license }),
    ...(sha512 !== undefined && {
      hash: { alg: 'SHA-512', content: Buffer.from(sha512, 'base64').toString('hex') },
    }),
  };
}

/** Checks only `packages`. */
export function isNpmLock(value: unknown): value is NpmLock {
  return typeof value === 'object' && value !== null && 'packages' in value;
}

export interface NpmLock {
  readonly packages: Readonly<
    Partial<
      Record<
        string,
        { readonly version: string; readonly license?: string; readonly integrity?: string }
      >
    >
  >;
}

export function debianComponent(
  name: string,
  version: string,
  architecture: string,
  release: string,
): Component {
  return { name, version, purl: debianPurl(name, version, architecture, release) };
}

export function debianPurl(
  name: string,
  version: string,
  architecture: string,
  release: string,
): string {
  const what = `${encodeURIComponent(name)}@${encodeURIComponent(version)}`;
  return `pkg:deb/debian/${what}?arch=${architecture}&distro=${release}`;
}

/** Stanzas as `dpkg-query -s` writes them. */
export function componentOfStanza(stanza: string, release: string): Component {
  const field = (name: string) => new RegExp(`^${name}: (.+)$`, 'm').exec(stanza)?.[1] ?? '';
  return debianComponent(field('Package'), field('Version'), field('Architecture'), release);
}
