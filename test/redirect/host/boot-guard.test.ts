import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import {
  removeBootGuard,
  renderBootGuard,
  writeBootGuard,
} from '../../../src/redirect/host/boot-guard.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';

const metadataIp = '169.254.169.254';
const unit = 'nmi-guard.service';

describe('the guard at boot', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-boot-guard-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('is shipped as the agent writes it', () => {
    const shipped = join(import.meta.dirname, '../../../deploy/boot-guard', unit);
    assert.equal(readFileSync(shipped, 'utf8'), renderBootGuard(metadataIp));
  });

  it('adds the bypass before the barrier, before the kubelet starts', () => {
    const text = renderBootGuard('10.0.0.1');
    assert.match(text, /^Before=kubelet\.service$/m);
    const rules = [...text.matchAll(/^ExecStart=-\/usr\/bin\/env ip (.*)$/gm)].map(
      ([, rule]) => rule,
    );
    assert.deepEqual(rules, [
      'rule add pref 81 to 10.0.0.1 nop',
      'rule add pref 79 iif lo to 10.0.0.1 goto 81',
      'rule add pref 80 to 10.0.0.1 prohibit',
    ]);
  });

  it('is written once, and wanted by the kubelet', () => {
    writeBootGuard(folder, metadataIp);
    assert.equal(readFileSync(join(folder, unit), 'utf8'), renderBootGuard(metadataIp));
    assert.equal(readlinkSync(join(folder, 'kubelet.service.wants', unit)), `../${unit}`);
    assert.equal(statSync(join(folder, unit)).mode & 0o777, 0o644);
    const written = statSync(join(folder, unit)).ino;
    writeBootGuard(folder, metadataIp);
    assert.equal(statSync(join(folder, unit)).ino, written);
  });

  it('is written again where it was changed', () => {
    writeBootGuard(folder, metadataIp);
    writeFileSync(join(folder, unit), 'something else');
    rmSync(join(folder, 'kubelet.service.wants', unit));
    writeBootGuard(folder, metadataIp);
    assert.equal(readFileSync(join(folder, unit), 'utf8'), renderBootGuard(metadataIp));
    assert.equal(readlinkSync(join(folder, 'kubelet.service.wants', unit)), `../${unit}`);
  });

  it('names the folder that it cannot be written to', () => {
    const missing = join(folder, 'missing');
    assert.throws(() => writeBootGuard(missing, metadataIp), {
      name: RedirectError.name,
      message: /write nmi-guard\.service in .*missing: ENOENT/,
    });
  });

  it('is removed, and leaves the files of others', () => {
    removeBootGuard(folder);
    writeBootGuard(folder, metadataIp);
    writeFileSync(join(folder, 'other.service'), '');
    removeBootGuard(folder);
    assert.deepEqual(readdirSync(folder), ['other.service']);
    writeBootGuard(folder, metadataIp);
    writeFileSync(join(folder, 'kubelet.service.wants/other.service'), '');
    removeBootGuard(folder);
    assert.deepEqual(readdirSync(join(folder, 'kubelet.service.wants')), ['other.service']);
    mkdirSync(join(folder, unit));
    assert.throws(() => removeBootGuard(folder), RedirectError);
  });
});
