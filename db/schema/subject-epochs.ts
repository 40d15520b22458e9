import { bigint, index, primaryKey, text } from '../drizzle.ts'
import { assay, instant, now } from './common.ts'

/** The sequence of all epochs: those of subjects, of customers and of the installation. */
export const epochs = assay.sequence('epochs')

/** Tokens and sessions of a subject with a lower epoch are revoked. A subject without a row has epoch 0. */
export const subjectEpochs = assay.table(
  'subject_epochs',
  {
    customerId: text('customer_id').notNull(),
    subject: text('subject').notNull(),
    /** Drawn from the shared epoch sequence, so that a row created after a deletion never reuses an epoch. */
    epoch: bigint('epoch', { mode: 'number' }).notNull(),
    changedAt: instant('changed_at').notNull().default(now),
    /**
     * When maintenance next checks whether a session still needs the row. Every token that the epoch revokes has expired by then.
     */
    checkAfter: instant('check_after').notNull(),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.subject] }),
    index('subject_epochs_check_after').on(table.checkAfter),
  ],
)
