/**
 * The recipes of CONTRIBUTING.md, followed in a copy of the repository: one change of each sort, only in
 * files that its recipe names. The copy then passes the type checker and the tests that the recipes name.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { repositoryFiles, repositoryRoot } from './tree.ts';

/** What follows the first occurrence of the anchor; the whole text of a new file. */
interface Edit {
  readonly file: string;
  readonly anchor?: string;
  readonly text: string;
  /** The recipe names the role of the file. */
  readonly isOfRole?: true;
}

const credentials = 'src/nmi/sources/entra/credentials';
const clientCredential = `export const recipeKind = describeSecretKind(
  { kind: 'cooked', type: 5, typeTitle: 'recipe' },
  () => () => invalidCredential('is of a recipe'),
);
`;

const recipes: Readonly<Record<string, readonly Edit[]>> = {
  'An option': [
    {
      file: 'src/nmi/config/options.ts',
      anchor: '  Kubernetes: {\n',
      text: "    recipe: { key: 'recipe', type: boolean, default: 'false', help: 'A recipe.' },\n",
    },
    {
      file: 'src/nmi/agent.ts',
      anchor: 'const { config, log, stop } = given;\n',
      text: "  if (config.recipe) log.info({}, 'recipe');\n",
      isOfRole: true,
    },
  ],
  'A kind of credential': [
    {
      file: `${credentials}/recipe.ts`,
      text: `/** Of the test of recipes. */
import { describeSecretKind, invalidCredential } from './secret-credential.ts';

${clientCredential}`,
    },
    {
      file: `${credentials}/kinds.ts`,
      anchor: "import { certificateKind } from './certificate.ts';\n",
      text: "import { recipeKind } from './recipe.ts';\n",
    },
    { file: `${credentials}/kinds.ts`, anchor: 'const list = [', text: 'recipeKind, ' },
    { file: 'deploy/crds.yaml', anchor: 'enum: [0, 1, 2, 3, 4', text: ', 5' },
    { file: 'deploy/crds.yaml', anchor: '(self.type in [1, 2, 3', text: ', 5' },
    { file: 'docs/identities.md', anchor: '# ', text: 'Recipe: ' },
    {
      file: 'test/support/entra-agent.ts',
      anchor:
        'identityOfKind(kind: CredentialKind, name: string): Partial<AzureIdentityOptions> {\n  switch (kind) {\n',
      text: "    case 'cooked':\n      return { type: 5, clientPassword: { name } };\n",
    },
    {
      file: 'test/support/entra-agent.ts',
      anchor: 'Promise<Partial<EntraApplication>> {\n  switch (kind) {\n',
      text: "    case 'cooked':\n      return { secrets: [{ value: putSecret(testBed.kube, name, name) }] };\n",
    },
    {
      file: 'test/nmi/sources/entra/credentials/kinds.test.ts',
      anchor: 'const samples = {\n',
      text: `  cooked: {
    type: 5,
    object: secret,
    credential: { kind: 'cooked', secret },
    asks: 'GET /api/v1/namespaces/team/secrets/opaque',
  },
`,
    },
  ],
  'An endpoint': [
    {
      file: 'src/nmi/server/route.ts',
      anchor: "  | { readonly kind: 'token'; readonly query: string }\n",
      text: "  | { readonly kind: 'recipe' }\n",
    },
    {
      file: 'src/nmi/server/route.ts',
      anchor: "  if (first.toLowerCase() !== 'metadata') return notFound;\n",
      text: "  if (second === 'recipe') return { kind: 'recipe' };\n",
    },
    {
      file: 'src/nmi/server/router.ts',
      anchor: '  switch (route.kind) {\n',
      text: "    case 'recipe':\n      return checkCommon(exchange, ['GET'], options) ?? recipeAnswer;\n",
    },
    {
      file: 'src/nmi/server/router.ts',
      anchor: "import { parseRoute, type Route } from './route.ts';\n",
      text: "import { recipeAnswer } from './recipe.ts';\n",
    },
    {
      file: 'src/nmi/server/recipe.ts',
      text: `/** Of the test of recipes. */
import type { Answer } from '../base/answers.ts';

export const recipeAnswer: Answer = { reason: 'ok', status: 200, body: '{}' };
`,
    },
    {
      file: 'src/nmi/telemetry/audit/audit.ts',
      anchor: "  'host-token': 'token request',\n",
      text: "  recipe: 'metadata request',\n",
    },
  ],
  'A reason': [
    {
      file: 'src/nmi/base/answers.ts',
      anchor: 'export const refusals = {\n',
      text: '  recipe_refused: invalid,\n',
    },
    {
      file: 'src/nmi/diagnosis/answer-codes.ts',
      anchor: 'export const answerCodes = {\n',
      text: `  recipe_refused: {
    means: 'A recipe is refused.',
    fix: 'Change the recipe.',
    check: 'Look at the recipe.',
  },
`,
    },
  ],
  'A verb of `kubectl nmi`': [
    {
      file: 'src/kubectl/verbs/recipe.ts',
      text: `/** Of the test of recipes. */
import { exitCodes } from '../base/io.ts';
import type { AddVerb } from './verb.ts';

export const addRecipe: AddVerb = (parser, start) =>
  parser.command(
    'recipe',
    'follow a recipe',
    (verb) => verb.example('$0 recipe', 'follow it'),
    (flags) => start(flags, () => Promise.resolve(exitCodes.ok)),
  );
`,
    },
    {
      file: 'src/kubectl/plugin.ts',
      anchor: "import { addVersion } from './verbs/version.ts';\n",
      text: "import { addRecipe } from './verbs/recipe.ts';\n",
    },
    {
      file: 'src/kubectl/plugin.ts',
      anchor: 'const addVerbs: readonly AddVerb[] = [\n',
      text: '  addRecipe,\n',
    },
  ],
  'A metric': [
    {
      file: 'src/nmi/telemetry/metric-table.ts',
      anchor: 'export const newMetrics = {\n',
      text: "  nmi_recipes_total: counter([], 'Recipes.'),\n",
    },
    {
      file: 'src/nmi/tokens/broker.ts',
      anchor: "{ metric: 'nmi_token_cache_entries', value: this.#cache.size },\n",
      text: "      { metric: 'nmi_recipes_total', value: 0 },\n",
      isOfRole: true,
    },
  ],
};

const run = promisify(execFile);
const page = await readFile(join(repositoryRoot, 'CONTRIBUTING.md'), 'utf8');
let copy = '';

function sectionOf(heading: string): string {
  const section = page.split(/^### /m).find((text) => text.startsWith(`${heading}\n`));
  assert.ok(section !== undefined, heading);
  return section;
}

/** `<kind>` and its like stand for the name of the new thing. */
function names(section: string, file: string): boolean {
  const paths = [...section.matchAll(/`([\w./<>-]+\.\w+)`/g)].map(([, path = '']) => path);
  return paths.some((path) => path.replace(/<\w+>/, 'recipe') === file);
}

async function apply({ file, anchor, text }: Edit): Promise<void> {
  const path = join(copy, file);
  if (anchor === undefined) return writeFile(path, text, { flag: 'wx' });
  const former = await readFile(path, 'utf8');
  assert.ok(former.includes(anchor), `${file} has: ${anchor}`);
  await writeFile(
    path,
    former.replace(anchor, () => anchor + text),
  );
}

async function node(...words: readonly string[]): Promise<void> {
  const { NODE_TEST_CONTEXT: _nested, ...env } = process.env;
  try {
    await run(process.execPath, words, { cwd: copy, env });
  } catch (error) {
    const { stdout } = error as { readonly stdout: string };
    assert.fail(`${words.join(' ')}: ${stdout}`);
  }
}

before(async () => {
  copy = await mkdtemp(join(tmpdir(), 'nmi-recipes-'));
  for (const { path } of repositoryFiles()) {
    await mkdir(dirname(join(copy, path)), { recursive: true });
    await cp(join(repositoryRoot, path), join(copy, path));
  }
  await symlink(join(repositoryRoot, 'node_modules'), join(copy, 'node_modules'));
});
after(() => rm(copy, { recursive: true, force: true }));

describe('the recipes, followed in a copy', () => {
  for (const [heading, edits] of Object.entries(recipes)) {
    it(`names every file: ${heading}`, async () => {
      const section = sectionOf(heading);
      for (const edit of edits) {
        assert.ok(edit.isOfRole ?? names(section, edit.file), `${heading}: ${edit.file}`);
        await apply(edit);
      }
    });
  }

  it('pass the type checker, and the tests that the recipes name', async () => {
    await node('node_modules/typescript/bin/tsc', '--noEmit', '-p', '.');
    for (const script of ['docs/generate', 'scripts/kubectl-page', 'scripts/chart-schema']) {
      await node(`${script}.ts`);
    }
    const tests = Object.keys(recipes).flatMap((heading) => [
      ...sectionOf(heading).matchAll(/`(test\/nmi\/[\w/-]+\.test\.ts)`/g),
    ]);
    await node('--test', '--test-isolation=none', ...tests.map(([, path = '']) => path));
    const [flags, reasons, verbs] = await Promise.all(
      ['flags', 'reasons', 'kubectl'].map((name) =>
        readFile(join(copy, `docs/${name}.md`), 'utf8'),
      ),
    );
    assert.match(flags ?? '', /--recipe/);
    assert.match(reasons ?? '', /recipe_refused/);
    assert.match(verbs ?? '', /kubectl nmi recipe/);
  });
});
