import { assay } from './common.ts'

/** Gives each new epoch, of subjects and customers alike. */
export const epochs = assay.sequence('epochs')
