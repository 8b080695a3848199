/** What a TypeScript file imports, and its regular expressions, read from its syntax tree. */
import { parseSync, Visitor } from 'rolldown/utils';
import type { SourceFile } from './tree.ts';

export interface Syntax {
  /** Of static, type-only and dynamic imports, and of re-exports. */
  readonly specifiers: readonly string[];
  /** Regular expression literals. */
  readonly patterns: readonly string[];
}

/** @throws Error with the location if the file does not parse. */
export function readSyntax({ path, text }: SourceFile): Syntax {
  const { program, errors } = parseSync(path, text, { lang: 'ts', sourceType: 'module' });
  const [error] = errors;
  if (error !== undefined) throw new Error(`${path}: ${error.message}`);
  const specifiers: string[] = [];
  const patterns: string[] = [];
  const take = ({ source }: { readonly source: object | null }): void => {
    if (source !== null && 'value' in source && typeof source.value === 'string') {
      specifiers.push(source.value);
    }
  };
  new Visitor({
    Literal(literal) {
      if ('regex' in literal) patterns.push(literal.regex.pattern);
    },
    ImportDeclaration: take,
    ExportNamedDeclaration: take,
    ExportAllDeclaration: take,
    ImportExpression: take,
  }).visit(program);
  return { specifiers, patterns };
}
