// Server-side apply.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as k8s from '@kubernetes/client-node';
import { core, makeNamespace, refused } from './cluster.mjs';

const namespace = await makeNamespace();
const as = (type) => k8s.setHeaderOptions('Content-Type', type);

test('server-side apply has managers, conflicts and force', async () => {
  const apply = (fieldManager, data, force) =>
    core.patchNamespacedConfigMap(
      {
        namespace,
        name: 'applied',
        fieldManager,
        force,
        body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied' }, data },
      },
      as(k8s.PatchStrategy.ServerSideApply),
    );
  await apply('one', { a: '1', b: '1' });
  const applied = await apply('one', { a: '2' });
  assert.deepEqual(applied.data, { a: '2' });
  assert.deepEqual(applied.metadata.managedFields.map((field) => [field.manager, field.operation]), [['one', 'Apply']]);
  const conflict = await refused(409, 'Conflict', apply('two', { a: '3' }));
  assert.equal(conflict.details.causes[0].reason, 'FieldManagerConflict');
  assert.deepEqual((await apply('two', { a: '3' }, true)).data, { a: '3' });
});
