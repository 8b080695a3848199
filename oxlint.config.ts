/**
 * What the linter refuses: suspicious code, and imports against the order of folders or outside the home of a package.
 * Rings of imports are refused everywhere.
 */
import { defineConfig, type OxlintOverride } from 'oxlint';

/**
 * The order of the entries of a folder, lowest first: each may import those on earlier lines, but not those on its own
 * line. Folder order is dependency order.
 */
const orders: Readonly<Record<string, readonly (readonly string[])[]>> = {
  src: [['base'], ['cache', 'redirect'], ['nmi'], ['cli', 'kubectl'], ['main.ts']],
  'src/cache': [['index', 'token']],
  'src/redirect': [
    ['redirect.ts'],
    ['target.ts'],
    ['native', 'cgroup'],
    ['host'],
    ['iptables'],
    ['ebpf'],
  ],
  'src/nmi': [
    ['base'],
    ['kube'],
    ['sources'],
    ['config'],
    ['callers'],
    ['grants'],
    ['diagnosis', 'kernel'],
    ['tokens', 'state'],
    ['server', 'conditions'],
    ['telemetry', 'explain'],
    ['admin'],
    ['agent.ts', 'conditions-process.ts', 'redirect-daemon.ts'],
  ],
  'src/nmi/kube': [['api'], ['accounts', 'events', 'watch']],
  'src/nmi/sources': [['entra'], ['imds']],
  'src/nmi/server': [['fast-path'], ['server.ts']],
  'src/kubectl': [
    ['base'],
    ['transport', 'azure'],
    ['cluster'],
    ['findings'],
    ['verbs', 'completion.ts', 'usage.ts'],
    ['plugin.ts'],
    ['main.ts'],
  ],
  lab: [
    ['fakes', 'frames', 'fabric'],
    ['pods'],
    ['test-bed'],
    ['scenarios'],
    ['command.ts', 'once.ts'],
    ['main.ts'],
  ],
};

/** What a folder of the repository imports nothing of. */
const strangers: Readonly<Record<string, readonly string[]>> = {
  src: ['lab', 'scripts', 'bench', 'test', 'docs'],
  lab: ['scripts', 'bench', 'test', 'docs'],
  scripts: ['lab', 'bench', 'test'],
  bench: ['scripts', 'test', 'docs'],
};

/** Where each package of the product may be imported, types included: files, or folders with a closing slash. */
const homes: Readonly<Record<string, readonly string[]>> = {
  '@azure/msal-node': ['src/nmi/sources/entra/token-exchange.ts'],
  '@kubernetes/client-node': [],
  '@kubernetes/client-node/dist/config.js': ['src/nmi/kube/api/credentials.ts'],
  'node-forge': ['src/nmi/sources/entra/credentials/', 'lab/fakes/'],
  pino: ['src/base/logger.ts'],
  'prom-client': ['src/nmi/telemetry/'],
  'sonic-boom': ['src/nmi/telemetry/audit/record-file.ts'],
  undici: ['src/nmi/kube/api/', 'src/nmi/sources/', 'src/nmi/server/passthrough.ts'],
  yaml: ['src/kubectl/'],
  yargs: ['src/cli/', 'src/kubectl/', 'lab/command.ts'],
};

/** The cache does no I/O: built-in modules without it, and the pure functions of `node:net`. */
const pureModules = [
  'node:assert',
  'node:assert/strict',
  'node:buffer',
  'node:crypto',
  'node:util',
  'node:net',
];
const pureOfNet = ['SocketAddress', 'isIP', 'isIPv4', 'isIPv6'];

const ownedByMain = [
  'abort',
  'argv',
  'exit',
  'exitCode',
  'reallyExit',
  'on',
  'once',
  'addListener',
  'prependListener',
];

/** Each place with a rule of its own, the wider ones first: the last that fits a file counts. */
const places = [
  ...Object.keys(strangers),
  ...Object.entries(orders).flatMap(([folder, lines]) =>
    lines.flat().map((entry) => `${folder}/${entry}`),
  ),
  ...Object.values(homes).flatMap((all) => all.map((home) => home.replace(/\/$/, ''))),
].toSorted((one, other) => one.length - other.length);

function isIn(path: string, folder: string): boolean {
  return `${path}/`.startsWith(`${folder.replace(/\/$/, '')}/`);
}

function filesOf(place: string): string[] {
  return [place.endsWith('.ts') ? place : `${place}/**`];
}

/** Entries of a folder that a place below it may not import. */
function unreachable(
  place: string,
  folder: string,
  lines: readonly (readonly string[])[],
): readonly string[] {
  const line = lines.findIndex((entries) =>
    entries.some((entry) => isIn(place, `${folder}/${entry}`)),
  );
  if (line < 0) return [];
  return lines
    .slice(line)
    .flat()
    .filter((entry) => !isIn(place, `${folder}/${entry}`));
}

function importRule(place: string): OxlintOverride {
  const entries = [
    ...(strangers[place.split('/')[0] ?? ''] ?? []),
    ...Object.entries(orders).flatMap(([folder, lines]) => unreachable(place, folder, lines)),
  ];
  const isProduct = isIn(place, 'src') || isIn(place, 'lab');
  const packages = Object.entries(homes)
    .filter(([, all]) => isProduct && !all.some((home) => isIn(place, home)))
    .map(([name]) => ({ name, message: 'This package has its home elsewhere.' }));
  const isPure = isIn(place, 'src/cache');
  const rule: NonNullable<OxlintOverride['rules']>['no-restricted-imports'] = [
    'error',
    {
      paths: [...packages, ...(isPure ? [{ name: 'node:net', allowImportNames: pureOfNet }] : [])],
      patterns: [
        ...(entries.length === 0
          ? []
          : [
              {
                regex: String.raw`^\.\.?/(?:.*/)?(?:${entries.join('|').replaceAll('.', String.raw`\.`)})(?:/|$)`,
                message: 'It is above this folder, or beside it.',
              },
            ]),
        ...(isPure
          ? [
              {
                group: ['node:**', ...pureModules.map((name) => `!${name}`)],
                message: 'The cache does no I/O.',
              },
            ]
          : []),
      ],
    },
  ];
  return { files: filesOf(place), rules: { 'no-restricted-imports': rule } };
}

export default defineConfig({
  plugins: ['eslint', 'typescript', 'import', 'promise', 'unicorn', 'oxc', 'node'],
  categories: {
    correctness: 'error',
    suspicious: 'error',
  },
  options: {
    typeAware: true,
    denyWarnings: true,
    reportUnusedDisableDirectives: 'error',
  },
  env: {
    node: true,
    es2024: true,
  },
  ignorePatterns: ['dist/**', 'node_modules/**'],
  rules: {
    eqeqeq: ['error', 'always'],
    'no-console': 'error',
    'no-eval': 'error',
    'no-fallthrough': 'error',
    'no-param-reassign': 'error',
    'no-self-compare': 'error',
    'no-throw-literal': 'error',
    'no-useless-return': 'error',
    'no-var': 'error',
    'object-shorthand': 'error',
    'prefer-const': 'error',
    'prefer-object-has-own': 'error',
    radix: 'error',
    'no-shadow': 'error',
    'no-underscore-dangle': 'off',
    'import/no-absolute-path': 'error',
    'import/no-cycle': 'error',
    'import/no-default-export': 'error',
    'import/no-duplicates': 'error',
    'import/no-named-as-default-member': 'off',
    'import/no-mutable-exports': 'error',
    'import/no-self-import': 'error',
    'import/no-unassigned-import': 'error',
    'import/first': 'error',
    'import/extensions': ['error', 'ignorePackages'],
    'node/no-top-level-await': 'off',
    'promise/always-return': 'off',
    'promise/no-callback-in-promise': 'off',
    'promise/no-multiple-resolved': 'error',
    'typescript/array-type': [
      'error',
      {
        default: 'array',
      },
    ],
    'typescript/await-thenable': 'error',
    'typescript/ban-ts-comment': [
      'error',
      {
        'ts-expect-error': 'allow-with-description',
        minimumDescriptionLength: 3,
      },
    ],
    'typescript/consistent-return': 'off',
    'typescript/consistent-type-imports': 'error',
    'typescript/no-base-to-string': 'error',
    'typescript/no-deprecated': 'error',
    'typescript/no-explicit-any': 'error',
    'typescript/no-floating-promises': [
      'error',
      {
        ignoreVoid: true,
      },
    ],
    'typescript/no-for-in-array': 'error',
    'typescript/no-import-type-side-effects': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/no-misused-spread': 'error',
    'typescript/no-namespace': 'error',
    'typescript/no-non-null-assertion': 'error',
    'typescript/no-require-imports': 'error',
    'typescript/no-unnecessary-boolean-literal-compare': 'error',
    'typescript/no-unnecessary-template-expression': 'error',
    'typescript/no-unnecessary-type-arguments': 'error',
    'typescript/no-unnecessary-type-assertion': 'error',
    'typescript/no-unsafe-argument': 'error',
    'typescript/no-unsafe-assignment': 'error',
    'typescript/no-unsafe-call': 'error',
    'typescript/no-unsafe-enum-comparison': 'error',
    'typescript/no-unsafe-member-access': 'error',
    'typescript/no-unsafe-return': 'error',
    'typescript/no-unsafe-type-assertion': 'error',
    'typescript/no-unsafe-unary-minus': 'error',
    'typescript/only-throw-error': 'error',
    'typescript/prefer-promise-reject-errors': 'error',
    'typescript/require-array-sort-compare': 'off',
    'typescript/restrict-plus-operands': 'error',
    'typescript/restrict-template-expressions': [
      'error',
      {
        allowNumber: true,
        allowBoolean: true,
        allowAny: false,
        allowNullish: false,
        allowRegExp: false,
      },
    ],
    'typescript/return-await': ['error', 'error-handling-correctness-only'],
    'typescript/switch-exhaustiveness-check': [
      'error',
      {
        considerDefaultExhaustiveForUnions: true,
      },
    ],
    'typescript/unbound-method': 'error',
    'typescript/use-unknown-in-catch-callback-variable': 'error',
    'unicorn/no-instanceof-array': 'error',
    'unicorn/no-process-exit': 'error',
    'unicorn/no-useless-spread': 'off',
    'unicorn/prefer-node-protocol': 'error',
    'unicorn/no-array-sort': 'off',
    'unicorn/no-array-reverse': 'off',
    'unicorn/consistent-function-scoping': 'off',
    'unicorn/prefer-add-event-listener': 'off',
    'unicorn/require-post-message-target-origin': 'off',
    'unicorn/filename-case': [
      'error',
      {
        case: 'kebabCase',
      },
    ],
    'no-warning-comments': [
      'error',
      {
        terms: ['todo', 'fixme'],
        location: 'anywhere',
      },
    ],
  },
  overrides: [
    ...places.map(importRule),
    {
      // Each main owns its process; the fabric removes namespaces when the process exits without having closed the lab.
      files: ['src/**', 'lab/**'],
      excludeFiles: ['src/main.ts', 'src/kubectl/main.ts', 'lab/main.ts', 'lab/fabric/fabric.ts'],
      rules: {
        'no-restricted-properties': [
          'error',
          ...ownedByMain.map((property) => ({ object: 'process', property })),
        ],
      },
    },
    {
      files: ['test/**', 'bench/**'],
      rules: {
        'no-restricted-properties': [
          'error',
          ...['describe', 'it', 'test', 'suite'].map((object) => ({ object, property: 'only' })),
        ],
      },
    },
    { files: ['oxlint.config.ts'], rules: { 'import/no-default-export': 'off' } },

    {
      files: ['src/**', 'lab/**'],
      rules: {
        'node/no-top-level-await': 'error',
      },
    },
    {
      files: ['src/**', 'scripts/**'],
      rules: {
        'max-lines-per-function': [
          'error',
          {
            max: 100,
          },
        ],
      },
    },
    {
      files: ['src/main.ts', 'src/kubectl/main.ts', 'lab/main.ts', 'scripts/**'],
      rules: {
        'unicorn/no-process-exit': 'off',
      },
    },
    {
      files: ['src/cli/**'],
      rules: {
        'no-console': 'off',
      },
    },
    {
      files: ['test/**', 'bench/**'],
      rules: {
        'typescript/no-floating-promises': [
          'error',
          {
            ignoreVoid: true,
            allowForKnownSafeCalls: [
              {
                from: 'package',
                package: 'node:test',
                name: ['describe', 'it', 'test', 'suite'],
              },
            ],
          },
        ],
        'typescript/no-non-null-assertion': 'off',
        'typescript/no-unsafe-type-assertion': 'off',
        'no-console': 'off',
        'unicorn/no-process-exit': 'off',
      },
    },
  ],
});
