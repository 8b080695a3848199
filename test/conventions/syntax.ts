/** What a TypeScript file imports, exports and uses, read from its syntax tree. */
import { parseSync, Visitor } from 'rolldown/utils';
import type { SourceFile } from './tree.ts';

export interface Import {
  readonly specifier: string;
  /** Names taken from the module; empty for a side-effect or whole import: all of it. */
  readonly names: readonly string[];
  readonly line: number;
}

/**
 * `object.property` or `const { property } = object`, called with `argument` first if that is a
 * plain text.
 */
export interface MemberUse {
  readonly object: string;
  readonly property: string;
  readonly argument: string | undefined;
  readonly line: number;
}

export interface Syntax {
  /** Static, type-only and dynamic imports, re-exports, `import('x').Type`, `getBuiltinModule`. */
  readonly imports: readonly Import[];
  readonly members: readonly MemberUse[];
  /** Lines of default exports. */
  readonly defaultExports: readonly number[];
  /** Lines of `only: true`. */
  readonly onlyOptions: readonly number[];
  /** Regular expression literals. */
  readonly patterns: readonly { readonly pattern: string; readonly line: number }[];
}

/** @throws Error with the location if the file does not parse. */
export function readSyntax({ path, text }: SourceFile): Syntax {
  const { program, errors } = parseSync(path, text, { lang: 'ts', sourceType: 'module' });
  const [error] = errors;
  if (error !== undefined) throw new Error(`${path}: ${error.message}`);
  const lineAt = createLineFinder(text);
  const imports: Import[] = [];
  const members: MemberUse[] = [];
  const defaultExports: number[] = [];
  const onlyOptions: number[] = [];
  const patterns: { pattern: string; line: number }[] = [];
  const firstTexts = new Map<number, string>();

  new Visitor({
    Literal(literal) {
      if (!('regex' in literal)) return;
      patterns.push({ pattern: literal.regex.pattern, line: lineAt(literal.start) });
    },
    ImportDeclaration({ source, specifiers, start }) {
      const names = specifiers.map((specifier) =>
        specifier.type === 'ImportSpecifier' ? nameOf(specifier.imported) : '*',
      );
      const whole = names.includes('*');
      imports.push({ specifier: source.value, names: whole ? [] : names, line: lineAt(start) });
    },
    ExportNamedDeclaration({ source, specifiers, start }) {
      if (source !== null) {
        const names = specifiers.map(({ local }) => nameOf(local));
        imports.push({ specifier: source.value, names, line: lineAt(start) });
      }
      if (specifiers.some(({ exported }) => nameOf(exported) === 'default')) {
        defaultExports.push(lineAt(start));
      }
    },
    ExportAllDeclaration({ source, start }) {
      imports.push({ specifier: source.value, names: [], line: lineAt(start) });
    },
    ExportDefaultDeclaration({ start }) {
      defaultExports.push(lineAt(start));
    },
    ImportExpression({ source, start }) {
      imports.push({ specifier: textOf(source) ?? '?', names: [], line: lineAt(start) });
    },
    TSImportType({ source, start }) {
      imports.push({ specifier: source.value, names: [], line: lineAt(start) });
    },
    CallExpression({ callee, arguments: [first], start }) {
      const argument = first === undefined ? undefined : textOf(first);
      if (argument !== undefined) firstTexts.set(callee.start, argument);
      if (callee.type !== 'MemberExpression') return;
      if (callee.property.type !== 'Identifier') return;
      if (callee.property.name !== 'getBuiltinModule') return;
      imports.push({ specifier: argument ?? '?', names: [], line: lineAt(start) });
    },
    MemberExpression({ object, property, computed, start }) {
      if (object.type !== 'Identifier') return;
      const name = computed ? textOf(property) : nameOf(property);
      if (name === undefined) return;
      const argument = firstTexts.get(start);
      members.push({ object: object.name, property: name, argument, line: lineAt(start) });
    },
    VariableDeclarator({ id, init, start }) {
      if (init?.type !== 'Identifier' || id.type !== 'ObjectPattern') return;
      for (const property of id.properties) {
        const taken = property.type === 'Property' ? nameOf(property.key) : '*';
        const use = { object: init.name, property: taken, argument: undefined };
        members.push({ ...use, line: lineAt(start) });
      }
    },
    Property({ key, value, start }) {
      const isOnly = 'name' in key && key.name === 'only';
      if (isOnly && value.type === 'Literal' && value.value === true) {
        onlyOptions.push(lineAt(start));
      }
    },
  }).visit(program);
  return { imports, members, defaultExports, onlyOptions, patterns };
}

function nameOf(node: { readonly type: string }): string {
  if ('name' in node && typeof node.name === 'string') return node.name;
  return textOf(node) ?? '?';
}

function textOf(node: { readonly type: string }): string | undefined {
  return 'value' in node && typeof node.value === 'string' ? node.value : undefined;
}

/** Offsets ascend in one visit, but not strictly: counted from the start each time. */
function createLineFinder(text: string): (offset: number) => number {
  return (offset) => text.slice(0, offset).split('\n').length;
}
