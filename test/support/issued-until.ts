import { ALICE, bearer, type Customer, type Replica, type World } from './world.ts'

/** Sets the state to that of a customer whose last token expired long ago. */
export const setQuiet = ({ admin }: World, { id }: Customer) =>
  admin.query(`update assay.customers set issued_until = '-infinity' where id = $1`, [id])

export const setPolicy = (assay: Replica, { id }: Customer, policy: object) =>
  assay.request(`/admin/customers/${id}/policy`, {
    method: 'PUT',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: JSON.stringify(policy),
  })
